//! One rule of an RFC each.
