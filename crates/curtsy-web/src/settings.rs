//! What an engine can be told about requests in general, with the defaults.

use http::HeaderName;

/// The most bytes of a body that are read into memory: 32 MiB, as gin keeps of a form.
///
/// ```
/// assert_eq!(curtsy_web::Settings::default().max_body, curtsy_web::BODY_BYTES_MAX);
/// ```
pub const BODY_BYTES_MAX: usize = 32 << 20;

/// What stands before a JSON array in `c.secure_json`, so that it is not a script.
///
/// ```
/// assert_eq!(curtsy_web::SECURE_JSON_PREFIX, "while(1);");
/// ```
pub const SECURE_JSON_PREFIX: &str = "while(1);";

/// How an engine treats requests in general.
///
/// ```
/// use curtsy_web::{Engine, Settings};
///
/// let mut r = Engine::new();
/// r.set_settings(Settings {
///     handle_method_not_allowed: true,
///     ..Settings::default()
/// });
/// ```
#[derive(Clone, Debug)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is an independent switch of the user's"
)]
pub struct Settings {
    /// Redirect to the path with or without its trailing slash if only that one has a route: 301
    /// for GET, 307 otherwise. Default `true`.
    pub redirect_trailing_slash: bool,
    /// Redirect to the cleaned path, compared without regard to the case of ASCII letters. Default
    /// `false`.
    pub redirect_fixed_path: bool,
    /// Answer 405 with `Allow` if other methods have a route for the path. Default `false`: 404.
    pub handle_method_not_allowed: bool,
    /// Believe trusted proxies about the client's address. Default `true`.
    pub forwarded_by_client_ip: bool,
    /// The headers in which proxies say it, in the order of asking. Default `X-Forwarded-For`,
    /// `X-Real-IP`.
    pub remote_ip_headers: Vec<HeaderName>,
    /// A header that the platform sets and that is always believed, for instance
    /// [`platform::CLOUDFLARE`](crate::platform::CLOUDFLARE). Default none.
    pub trusted_platform: Option<HeaderName>,
    /// Match the path as it came, escapes and all, so that `%2F` is no separator. Default `false`.
    pub use_raw_path: bool,
    /// With `use_raw_path`: decode parameters after the match. Default `true`.
    pub unescape_path_values: bool,
    /// Match as if repeated slashes were one. Default `false`.
    pub remove_extra_slash: bool,
    /// How many bytes of a form's files are kept in memory; what is more goes to temporary files.
    /// Default 32 MiB.
    pub max_multipart_memory: usize,
    /// How many bytes of a body are read into memory before the answer is 413. Default
    /// [`BODY_BYTES_MAX`]. Streams and files of a form are not counted: bound them by a layer.
    pub max_body: usize,
    /// What stands before a JSON array in `c.secure_json`. Default [`SECURE_JSON_PREFIX`].
    pub secure_json_prefix: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            redirect_trailing_slash: true,
            redirect_fixed_path: false,
            handle_method_not_allowed: false,
            forwarded_by_client_ip: true,
            remote_ip_headers: vec![
                HeaderName::from_static("x-forwarded-for"),
                HeaderName::from_static("x-real-ip"),
            ],
            trusted_platform: None,
            use_raw_path: false,
            unescape_path_values: true,
            remove_extra_slash: false,
            max_multipart_memory: BODY_BYTES_MAX,
            max_body: BODY_BYTES_MAX,
            secure_json_prefix: SECURE_JSON_PREFIX.to_owned(),
        }
    }
}
