"""HTTP, piece by piece: what api.py and server.py are put together from. docs/adr/0011 says why there is a room for it.

| module | what lives in it |
|---|---|
| protocols.py | what HTTP asks of the service and of the board |
| answers.py | an answer, and the one table and one shape of errors |
| gate.py | who may ask: Host, token, Origin |
| contract.py | what a request may hold, as openapi.json has it |
| status.py | the status and health calls, answered alike with and without the door |
| accepting.py | the listening socket, and how connections are taken from it |
| connection.py | a connection and its limits, and the short way for requests that came before |
| memo.py | requests that came before, and how they are answered |
| turnstile.py | how much is begun in one turn of the loop |
| exchange.py | one request at the door, its body, its answer |
| waiting.py | long polls |
| streams.py | event streams |

Not here: routes and handlers (api.py), the door and the socket (server.py), and any decision about a target.
"""
