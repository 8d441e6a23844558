"""The broker: a pure core that owns every job, and a thin shell of sockets, store and bulk files around it."""
