//! iperf3's protocol, both roles: a control connection that says what is to be done and what came of it, and streams
//! of TCP or UDP that are told by a cookie or by their address.
//!
//! ```text
//! client                                   server
//!   cookie, 37 bytes                  ->
//!                                     <-   PARAM_EXCHANGE
//!   length, parameters as JSON        ->
//!                                     <-   CREATE_STREAMS
//!   streams: cookie, or a datagram    ->   (a datagram is answered)
//!                                     <-   TEST_START, TEST_RUNNING
//!   data                             <->   data
//!   TEST_END                          ->
//!                                     <-   EXCHANGE_RESULTS
//!   length, results as JSON          <->   length, results as JSON
//!                                     <-   DISPLAY_RESULTS
//!   IPERF_DONE                        ->
//! ```
//!
//! | file | what it owns |
//! |---|---|
//! | `control` | states, cookies, JSON of bounded length |
//! | `params`, `results` | what the two tell each other in JSON |
//! | `udp` | headers of datagrams; loss, order and jitter |
//! | `pacing` | a rate, and when the next write is due |
//! | `flow` | the streams, and the tasks that move their bytes |
//! | `report` | lines for people, and the JSON that iperf3 would print |
//! | `client`, `server` | the roles |
//!
//! Not here: SCTP, authentication, `--get-server-output`, zero copy, and files.

pub(super) mod client;
mod control;
mod flow;
mod pacing;
mod params;
mod report;
mod results;
pub(super) mod server;
#[cfg(test)]
mod tests;
mod udp;
