//! Names and passwords by HTTP's basic scheme, and the middleware that shows noted errors.

use crate::context::Context;
use crate::handler::{BoxFuture, Call};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderName, HeaderValue, StatusCode, header};
use std::sync::Arc;

/// The realm that is asked for if none is given.
const REALM: &str = "Authorization Required";

/// The middleware of [`basic_auth`] and [`basic_auth_for_proxy`].
///
/// ```
/// use curtsy_web::{BasicAuth, Engine, basic_auth};
///
/// let staff: BasicAuth = basic_auth([("ann", "s3cret"), ("bob", "hunter2")]);
/// let mut r = Engine::new();
/// r.group_with("/admin", staff);
/// ```
#[derive(Clone)]
pub struct BasicAuth(Arc<Accounts>);

struct Accounts {
    /// The header's value that each user must send, and the user's name.
    expected: Vec<(Vec<u8>, String)>,
    ask: HeaderValue,
    proxy: bool,
}

/// Lets only known users through: `(name, password)` pairs. Others get 401. The user's name is
/// then `c.get::<String>("user")`.
///
/// # Panics
/// If there is no account or a name is empty.
///
/// ```
/// use curtsy_web::{Context, Engine, basic_auth};
///
/// let mut r = Engine::new();
/// let mut admin = r.group("/admin");
/// admin.use_middleware(basic_auth([("ann", "s3cret")]));
/// admin.get("/me", async |c: &mut Context| {
///     let user = c.get::<String>("user").cloned().unwrap_or_default();
///     c.string(200, user);
/// });
/// ```
pub fn basic_auth<'p>(accounts: impl IntoIterator<Item = (&'p str, &'p str)>) -> BasicAuth {
    BasicAuth::new(accounts, REALM, false)
}

/// [`basic_auth`] with a realm of its own.
///
/// ```
/// use curtsy_web::{Engine, basic_auth_for_realm};
///
/// let mut r = Engine::new();
/// r.group_with("/admin", basic_auth_for_realm([("ann", "s3cret")], "staff only"));
/// ```
///
/// # Panics
/// If there is no account, a name is empty, or the realm has bytes that a header cannot hold.
pub fn basic_auth_for_realm<'p>(
    accounts: impl IntoIterator<Item = (&'p str, &'p str)>,
    realm: &str,
) -> BasicAuth {
    BasicAuth::new(accounts, realm, false)
}

/// [`basic_auth`] for a proxy: 407 and the `Proxy-` headers; the name is kept as `proxy_user`.
///
/// ```
/// use curtsy_web::{Engine, basic_auth_for_proxy};
///
/// let mut r = Engine::new();
/// r.use_middleware(basic_auth_for_proxy([("ann", "s3cret")], "the proxy"));
/// ```
///
/// # Panics
/// As [`basic_auth`].
pub fn basic_auth_for_proxy<'p>(
    accounts: impl IntoIterator<Item = (&'p str, &'p str)>,
    realm: &str,
) -> BasicAuth {
    BasicAuth::new(accounts, realm, true)
}

impl BasicAuth {
    fn new<'p>(
        accounts: impl IntoIterator<Item = (&'p str, &'p str)>,
        realm: &str,
        proxy: bool,
    ) -> Self {
        let account = |(name, password): (&str, &str)| {
            assert!(!name.is_empty(), "a user's name cannot be empty");
            let encoded = BASE64_STANDARD.encode(format!("{name}:{password}"));
            (format!("Basic {encoded}").into_bytes(), name.to_owned())
        };
        let expected: Vec<_> = accounts.into_iter().map(account).collect();
        assert!(
            !expected.is_empty(),
            "basic auth needs at least one account"
        );
        let realm = if realm.is_empty() { REALM } else { realm };
        let Ok(ask) = HeaderValue::from_str(&format!("Basic realm={realm:?}")) else {
            panic!("a header cannot hold the realm {realm:?}");
        };
        Self(Arc::new(Accounts {
            expected,
            ask,
            proxy,
        }))
    }
}

impl Accounts {
    /// The user whose credentials these are. Every account is compared to its end, so that the time
    /// it takes tells nothing but lengths.
    fn user(&self, sent: &[u8]) -> Option<&str> {
        let mut found = None;
        for (expected, name) in &self.expected {
            let differing = expected
                .iter()
                .zip(sent)
                .fold(0, |all, (a, b)| all | (a ^ b));
            if expected.len() == sent.len() && differing == 0 {
                found = Some(name.as_str());
            }
        }
        found
    }

    fn headers(&self) -> (HeaderName, HeaderName, StatusCode, &'static str) {
        if self.proxy {
            let status = StatusCode::PROXY_AUTHENTICATION_REQUIRED;
            let (sent, ask) = (header::PROXY_AUTHORIZATION, header::PROXY_AUTHENTICATE);
            (sent, ask, status, "proxy_user")
        } else {
            let (sent, ask) = (header::AUTHORIZATION, header::WWW_AUTHENTICATE);
            (sent, ask, StatusCode::UNAUTHORIZED, "user")
        }
    }
}

impl std::fmt::Debug for BasicAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BasicAuth")
            .field("accounts", &self.0.expected.len())
            .finish_non_exhaustive()
    }
}

impl<'a> Call<'a> for BasicAuth {
    type Future = BoxFuture<'a, ()>;

    fn call(&'a self, c: &'a mut Context) -> Self::Future {
        Box::pin(async move {
            let accounts = &self.0;
            let (sent, ask, status, key) = accounts.headers();
            let value = c.headers().get(sent).map_or(&[][..], HeaderValue::as_bytes);
            match accounts.user(value).map(ToOwned::to_owned) {
                Some(user) => c.set(key, user),
                None => {
                    c.header(ask, accounts.ask.clone());
                    c.abort_with_status(status);
                }
            }
        })
    }
}

/// The middleware of [`error_logger`].
///
/// ```
/// use curtsy_web::{Engine, ErrorLogger, error_logger};
///
/// let logger: ErrorLogger = error_logger();
/// Engine::new().use_middleware(logger);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ErrorLogger(());

/// Shows the noted errors' public messages as JSON, if nothing else was written: one as an object,
/// several as a list.
///
/// ```
/// use curtsy_web::{Context, Engine, Error, StatusCode, error_logger};
///
/// let mut r = Engine::new();
/// r.use_middleware(error_logger());
/// r.get("/", async |c: &mut Context| {
///     c.status(409);
///     c.error(Error::new(StatusCode::CONFLICT, "taken"));
/// });
/// ```
pub fn error_logger() -> ErrorLogger {
    ErrorLogger(())
}

impl<'a> Call<'a> for ErrorLogger {
    type Future = BoxFuture<'a, ()>;

    fn call(&'a self, c: &'a mut Context) -> Self::Future {
        Box::pin(async move {
            c.next().await;
            let nothing_said = c.response_bytes().is_some_and(<[u8]>::is_empty);
            let errors: Vec<_> = c.errors().iter().map(crate::Error::to_json).collect();
            let status = c.response_status();
            match (&errors[..], nothing_said) {
                ([], _) | (_, false) => {}
                ([one], true) => c.json(status, one),
                (several, true) => c.json(status, several),
            }
        })
    }
}
