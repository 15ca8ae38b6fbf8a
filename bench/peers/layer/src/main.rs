//! Curtsy's server with the very service of `hyper-tpc`, on the same kind of runtime: the difference between the two is
//! what exact connection states, limits and the ledger add to hyper's own connection.

use std::num::NonZeroUsize;

use curtsy_server::Server;
use hyper::service::service_fn;
use peer::Args;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    Server::builder()
        .listen(args.listener()?)
        .workers(NonZeroUsize::new(args.threads).unwrap_or(NonZeroUsize::MIN))
        .connection_in_extensions(false)
        .build(service_fn(hyper_tpc::answer))?
        .run_blocking()?;
    Ok(())
}
