//! Sockets for programs that are written for `std::net`: the same names, traits and kinds of errors.
