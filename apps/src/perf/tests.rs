//! Whole runs on the kernel's sockets, over loopback.
