//! What a handler reads of a request without waiting: parameters, query, headers, cookies, who the
//! client is.
//!
//! As in gin, what is not there reads as an empty text; the `get_` form says whether it was there.

use crate::context::Context;
use crate::form;
use crate::proxy::parse_address;
use curtsy_lifecycle::Address;
use http::{Extensions, HeaderMap, Method, Uri, Version, header};
use std::collections::BTreeMap;
use std::net::IpAddr;

impl Context {
    /// The request's method.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// let is_read = *c.method() == curtsy_web::Method::GET;
    /// # }
    /// ```
    pub fn method(&self) -> &Method {
        &self.request.method
    }

    /// The request's URI.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// let host = c.uri().host().map(ToOwned::to_owned);
    /// # }
    /// ```
    pub fn uri(&self) -> &Uri {
        &self.request.uri
    }

    /// The request's path as it came, without its query.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// let path = c.path().to_owned();
    /// c.string(200, path);
    /// # }
    /// ```
    pub fn path(&self) -> &str {
        self.request.uri.path()
    }

    /// The version of HTTP that the client speaks.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// let is_http2 = c.version() == http::Version::HTTP_2;
    /// # }
    /// ```
    pub fn version(&self) -> Version {
        self.request.version
    }

    /// The request's headers.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// let languages: Vec<_> = c.headers().get_all("accept-language").iter().collect();
    /// # }
    /// ```
    pub fn headers(&self) -> &HeaderMap {
        &self.request.headers
    }

    /// The request's extensions: what the server and outer layers attached to it.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// #[derive(Clone)]
    /// struct RequestId(u64); // from a tower layer
    ///
    /// let id = c.extensions().get::<RequestId>().map(|id| id.0);
    /// # }
    /// ```
    pub fn extensions(&self) -> &Extensions {
        &self.request.extensions
    }

    /// The request's extensions, to change.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// #[derive(Clone)]
    /// struct Tenant(u64);
    ///
    /// c.extensions_mut().insert(Tenant(7));
    /// # }
    /// ```
    pub fn extensions_mut(&mut self) -> &mut Extensions {
        &mut self.request.extensions
    }

    /// A parameter of the path by its name in the pattern; empty if the route has none of that
    /// name. A catch-all's value begins with a slash.
    ///
    /// ```
    /// # use curtsy_web::{Context, Engine, test::Client};
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let mut r = Engine::new();
    /// r.get("/user/:name/*action", async |c: &mut Context| {
    ///     let text = format!("{} is {}", c.param("name"), c.param("action"));
    ///     c.string(200, text);
    /// });
    /// let answer = Client::new(r).get("/user/ann/send").send().await;
    /// assert_eq!(answer.text(), "ann is /send");
    /// # });
    /// ```
    pub fn param(&self, name: &str) -> &str {
        let names = &self.route().names;
        let index = names.iter().position(|of| **of == *name);
        index.map_or("", |index| self.param_at(index))
    }

    /// All parameters of the path in the order of the pattern.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// // Of `/user/:name/*action`.
    /// for (name, value) in c.params() {
    ///     println!("{name} = {value}"); // name = ada, action = /send
    /// }
    /// # }
    /// ```
    pub fn params(&self) -> impl Iterator<Item = (&str, &str)> {
        let names = self.route().names.iter().enumerate();
        names.map(|(index, name)| (&**name, self.param_at(index)))
    }

    fn param_at(&self, index: usize) -> &str {
        let text = self.text.as_deref().unwrap_or(self.request.uri.path());
        self.params
            .range(index)
            .and_then(|range| text.get(range))
            .unwrap_or("")
    }

    /// The first value of a query's key; empty if there is none.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// // /welcome?name=ada
    /// let name = c.query("name").to_owned();
    /// c.string(200, name);
    /// # }
    /// ```
    pub fn query(&self, key: &str) -> &str {
        self.get_query(key).unwrap_or("")
    }

    /// The first value of a query's key, if the key is there.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// if c.get_query("debug").is_some() {
    ///     c.header("X-Debug", "on");
    /// }
    /// # }
    /// ```
    pub fn get_query(&self, key: &str) -> Option<&str> {
        form::first(self.queries(), key)
    }

    /// The first value of a query's key, or what is given.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// let page = c.default_query("page", "1");
    /// # }
    /// ```
    pub fn default_query<'q>(&'q self, key: &str, default: &'q str) -> &'q str {
        self.get_query(key).unwrap_or(default)
    }

    /// All values of a query's key.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// // ?id=1&id=2
    /// let ids = c.query_array("id");
    /// # }
    /// ```
    pub fn query_array(&self, key: &str) -> Vec<&str> {
        form::all(self.queries(), key)
    }

    /// The values of `key[..]`: `?ids[a]=1&ids[b]=2` is `{a: 1, b: 2}` for `ids`.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// // ?ids[a]=1234&ids[b]=hello
    /// let ids = c.query_map("ids");
    /// let of_a = ids.get("a");
    /// # }
    /// ```
    pub fn query_map(&self, key: &str) -> BTreeMap<&str, &str> {
        form::map(self.queries(), key)
    }

    /// The query as pairs in their order, decoded. Parsed when it is first asked for.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// for (name, value) in c.queries() {
    ///     println!("{name} = {value}");
    /// }
    /// # }
    /// ```
    pub fn queries(&self) -> &[(String, String)] {
        self.query
            .get_or_init(|| form::parse(self.request.uri.query().unwrap_or("").as_bytes()))
    }

    /// A header of the request as text; empty if it is not there or not text.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// let agent = c.get_header("user-agent").to_owned();
    /// # }
    /// ```
    pub fn get_header(&self, name: &str) -> &str {
        let value = self.request.headers.get(name);
        value.and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    /// The media type of the request's body, without parameters.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// if c.content_type() != "application/json" {
    ///     return c.abort_with_status(415);
    /// }
    /// # }
    /// ```
    pub fn content_type(&self) -> &str {
        let value = self.get_header(header::CONTENT_TYPE.as_str());
        value.split([';', ' ']).next().unwrap_or("")
    }

    /// A cookie's value, decoded; `None` if the client sent none of that name.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// let session = c.cookie("session").unwrap_or_default();
    /// # }
    /// ```
    pub fn cookie(&self, name: &str) -> Option<String> {
        let lines = self.request.headers.get_all(header::COOKIE);
        let lines = lines.iter().filter_map(|line| line.to_str().ok());
        lines
            .flat_map(|line| cookie::Cookie::split_parse_encoded(line).flatten())
            .find(|cookie| cookie.name() == name)
            .map(|cookie| cookie.value().to_owned())
    }

    /// The peer's address: whoever opened the connection, be it a proxy. `None` for a Unix socket
    /// and for a request that no server brought.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// if c.remote_ip().is_some_and(|ip| ip.is_loopback()) {
    ///     c.string(200, "hello, neighbour");
    /// }
    /// # }
    /// ```
    pub fn remote_ip(&self) -> Option<IpAddr> {
        let peer = self.info.as_ref()?.peer();
        peer.ip().map(|address| address.to_canonical())
    }

    /// The client's address: the platform's word if
    /// [`Settings::trusted_platform`](crate::Settings::trusted_platform) is set; else what trusted
    /// proxies say ([`Engine::set_trusted_proxies`](crate::Engine::set_trusted_proxies)); else the
    /// peer's. The peer of a Unix socket is trusted.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// let client = c.client_ip().map(|ip| ip.to_string()).unwrap_or_default();
    /// c.string(200, client);
    /// # }
    /// ```
    pub fn client_ip(&self) -> Option<IpAddr> {
        let settings = &self.engine.settings;
        if let Some(platform) = &settings.trusted_platform
            && let Some(address) = parse_address(self.get_header(platform.as_str()))
        {
            return Some(address);
        }
        let remote = self.remote_ip();
        let trusted = match self.info.as_ref().map(|info| info.peer()) {
            Some(Address::Unix(_)) => true,
            Some(Address::Tcp(_)) => remote.is_some_and(|ip| self.engine.proxies.trusts(ip)),
            None => false,
        };
        if trusted && settings.forwarded_by_client_ip {
            let names = &settings.remote_ip_headers;
            let forwarded = self.engine.proxies.forwarded(&self.request.headers, names);
            return forwarded.or(remote);
        }
        remote
    }

    /// `https` if the client came encrypted, as far as is known: by the connection, or by the
    /// `X-Forwarded-Proto` of a trusted proxy. Else `http`.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// let url = format!("{}://{}/", c.scheme(), c.get_header("host"));
    /// # }
    /// ```
    pub fn scheme(&self) -> &'static str {
        if self.info.as_ref().is_some_and(|info| info.is_tls()) {
            return "https";
        }
        let trusted = match self.info.as_ref().map(|info| info.peer()) {
            Some(Address::Unix(_)) => true,
            Some(Address::Tcp(peer)) => self.engine.proxies.trusts(peer.ip()),
            None => false,
        };
        let forwarded = self.get_header("x-forwarded-proto");
        if trusted && forwarded.trim().eq_ignore_ascii_case("https") {
            return "https";
        }
        "http"
    }

    /// Whether the client asks for a WebSocket.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// if !c.is_websocket() {
    ///     c.string(426, "this is for WebSockets");
    /// }
    /// # }
    /// ```
    pub fn is_websocket(&self) -> bool {
        let has = |name: &str, wanted: &str| {
            let value = self.get_header(name);
            let mut tokens = value.split(',').map(str::trim);
            tokens.any(|token| token.eq_ignore_ascii_case(wanted))
        };
        has("connection", "upgrade") && has("upgrade", "websocket")
    }
}
