"""From masked updates to the next model: `spool` (verified bytes), `fold` (adds), `strategies`, `commit`."""
