//! Which headers may pass, up and down.
