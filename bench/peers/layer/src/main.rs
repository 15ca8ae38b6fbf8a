//! Curtsy's server with the very service of `hyper-tpc`, on the same kind of runtime: the difference between the two is
//! what exact connection states, limits and the ledger add to hyper's own connection.

use curtsy_server::Server;
use hyper::service::service_fn;
use peer::Args;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        Server::builder()
            .listen(args.listener()?)
            .connection_in_extensions(false)
            .build(service_fn(hyper_tpc::answer))?
            .run()
            .await?;
        Ok(())
    })
}
