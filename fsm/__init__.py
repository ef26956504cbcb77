"""The lifecycle: states, edges, guards and one function, `fire`. Pure: no I/O, no clock, no logging."""
