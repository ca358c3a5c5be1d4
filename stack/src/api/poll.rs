//! Run to completion on the caller's thread: events with tokens, and buffers that are seen in place.
