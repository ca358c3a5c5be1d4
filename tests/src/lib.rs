#![forbid(unsafe_code)]
//! Shared parts of the integration tests.
//!
//! | module | what it owns |
//! |---|---|
//! | [`runner`] | what a test case needs (a wire, root, a program), and running all of them |
//! | [`programs`] | child processes: the program under test, and those of others |
//! | [`closing`] | closing a socket of the kernel's, and being sure of it |
//! | [`script`] | packet scripts: a language, and the kernel or a shard that is held against it |
//! | [`differential`] | the same frames to a shard and to smoltcp |
//! | [`ideal`] | a model of a perfect sender, to hold ours against |
//! | [`sim`] | a network in virtual time: many shards, bad wires, routers |
//! | [`targets`] | bodies of the fuzz targets |
//! | [`tidy`] | rules on the source text |
//! | [`compliance`] | which sentences of RFCs the source names, and where |

pub mod closing;
pub mod compliance;
pub mod differential;
pub mod ideal;
pub mod programs;
pub mod runner;
pub mod script;
pub mod sim;
pub mod targets;
pub mod tidy;
