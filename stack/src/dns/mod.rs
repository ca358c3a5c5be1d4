//! Names to addresses: a stub resolver (RFC 1034, 1035).
