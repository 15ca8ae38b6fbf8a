//! What the framework and the bare server have in common, so that nothing but the framework is between them.

#![forbid(unsafe_code)]

use curtsy::{Error, Server};
use peer::Args;
use serde::{Deserialize, Serialize};

/// What `/json/:name` answers with.
#[derive(Debug, Serialize)]
pub struct User<'n> {
    /// The parameter.
    pub name: &'n str,
    /// So that there is more than one field.
    pub admin: bool,
}

/// What `/signup` reads, and the rules: the same in every peer.
#[derive(Debug, Deserialize, garde::Validate)]
pub struct Signup {
    /// From 3 to 20 characters.
    #[garde(length(chars, min = 3, max = 20))]
    pub name: String,
    /// An address.
    #[garde(email)]
    pub email: String,
    /// From 18 to 130.
    #[garde(range(min = 18, max = 130))]
    pub age: u32,
}

/// Serves until SIGTERM, on the runtime of one thread that every server of this kind gets.
///
/// # Errors
/// Those of the runtime and of the server.
pub fn serve<S, Kind>(service: S) -> Result<(), Box<dyn std::error::Error>>
where
    S: curtsy::IntoService<Kind>,
{
    let args = Args::parse();
    let listener = args.listener()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        Server::builder()
            .listen(listener)
            .connection_in_extensions(false)
            .build(service)?
            .run()
            .await?;
        Ok::<_, Error>(())
    })?;
    Ok(())
}
