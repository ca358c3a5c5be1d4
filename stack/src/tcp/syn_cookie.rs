//! helper passive: SYN cookies
