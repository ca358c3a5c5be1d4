//! iperf3's protocol.
pub(super) mod client {
    use crate::{error::AppError, perf::args::Iperf3ClientArgs, sockets::{Program, Sockets}};
    #[derive(Debug)]
    pub(crate) struct Client<'a> { pub(crate) args: &'a Iperf3ClientArgs }
    impl Program for Client<'_> { type Output = Result<(), AppError>;
     async fn run<S: Sockets>(self, _s: S) -> Self::Output { let _ = self.args; Err(AppError::usage("not yet")) } }
}
pub(super) mod server {
    use crate::{error::AppError, perf::args::Iperf3ServerArgs, sockets::{Program, Sockets}};
    #[derive(Debug)]
    pub(crate) struct Server<'a> { pub(crate) args: &'a Iperf3ServerArgs }
    impl Program for Server<'_> { type Output = Result<(), AppError>;
     async fn run<S: Sockets>(self, _s: S) -> Self::Output { let _ = self.args; Err(AppError::usage("not yet")) } }
}
