//! All state of one core.
