//! Tests of SLIP.
