"""Where posts come from. Runs inside a worker and never touches the database; the daemon imports the light ones only.

Who a target is (light): `registry` finds the adapter, `source` says what an adapter is, `urls` and `places` spell
addresses, `plugins` and `checks` look at the user's own.

Adapters, a module each: `feed` and those that read feeds (`gitlab`, `youtube`, `lobsters`, `arxiv`, `gitea`,
`mercurial`, `reddit`), those that ask an API (`mastodon`, `activitypub`, `bluesky`, `github`, `hackernews`,
`stackexchange`, `devto`, `mediawiki`, on `records` and `paging`), pages by selectors (`page` and `page_*`), programs
(`command`, `command_*` and `output`). `load` finds the function for an order.

The session: `http` fetches by `session`, `addresses` lets it connect to what is public, `manners` waits for turns and
obeys robots.txt, `limits` reads what headers ask, `bodies` decompresses, `failures` says why there is no answer.

Feeds: `feeds` follows one; `documents` tells what an answer is; `xml_feed` (`rss`, `atom`, on `xml`), `json_feed` and
`tolerant` read it into `items`; `texts`, `dates`, `charsets` and `heads` are the small print.
"""
