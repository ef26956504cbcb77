"""Where posts come from: adapters and their HTTP session. Runs inside a worker, never touches the database."""
