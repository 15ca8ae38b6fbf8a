//! From a request to its route, or to what is said without one: redirects, 405, 404, 400.

use crate::body::Body;
use crate::context::Context;
use crate::path::{ascii, clean, decode, location, raw_location, single_slashes};
use crate::table::{Table, Target};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

/// Finds out what answers the request; an answer if there is nothing to find.
///
/// The context comes by reference: it is large, and every hand that it went through would copy it.
#[inline]
pub(crate) fn find(table: &Table, c: &mut Context) -> Option<Response<Body>> {
    if !read_path(c) {
        return Some(bad_request());
    }
    let path = c.text.as_deref().unwrap_or(c.request.uri.path());
    let Some(id) = table.find(&c.request.method, path, &mut c.params) else {
        return without_route(table, c);
    };
    c.target = Target::Route(id);
    if table.settings.use_raw_path && table.settings.unescape_path_values {
        unescape_params(c);
    }
    None
}

/// Decodes the path if it has to be; `false` if it cannot be.
#[inline]
fn read_path(c: &mut Context) -> bool {
    let settings = &c.engine.settings;
    let raw = c.request.uri.path();
    if !settings.use_raw_path && raw.contains('%') {
        match decode(raw) {
            Some(path) => c.text = Some(path.into()),
            None => return false,
        }
    }
    if settings.remove_extra_slash {
        let path = c.text.as_deref().unwrap_or(raw);
        if path.contains("//") {
            c.text = Some(single_slashes(path).into());
        }
    }
    true
}

/// Replaces the text that parameters are ranges of by their decoded values, one after the other. A
/// value with a broken escape stays as it is.
fn unescape_params(c: &mut Context) {
    let path = c.text.as_deref().unwrap_or(c.request.uri.path());
    if !path.contains('%') {
        return;
    }
    let mut text = String::with_capacity(path.len());
    let mut params = crate::router::Params::default();
    for range in (0..c.params.len()).filter_map(|index| c.params.range(index)) {
        let value = &path[range];
        let start = text.len();
        match decode(value) {
            Some(decoded) => text.push_str(&decoded),
            None => text.push_str(value),
        }
        params.push(start, text.len());
    }
    c.params = params;
    c.text = Some(text.into());
}

#[cold]
fn without_route(table: &Table, c: &mut Context) -> Option<Response<Body>> {
    if let Some(response) = redirect(c) {
        return Some(response);
    }
    let settings = &table.settings;
    if settings.handle_method_not_allowed {
        let path = c.text.as_deref().unwrap_or(c.request.uri.path());
        let allowed = table.allowed(&c.request.method, path);
        if !allowed.is_empty() {
            let names: Vec<&str> = allowed.iter().map(|method| method.as_str()).collect();
            let names = names.join(", ");
            c.target = Target::Refused;
            c.header(header::ALLOW, names);
            c.status(StatusCode::METHOD_NOT_ALLOWED);
            return None;
        }
    }
    c.target = Target::Missing;
    c.status(StatusCode::NOT_FOUND);
    None
}

/// The redirect to a path that has a route, if there is one and it is wanted.
fn redirect(c: &Context) -> Option<Response<Body>> {
    let method = &c.request.method;
    let table: &Table = &c.engine;
    let tree = table.tree(method)?;
    let path = c.text.as_deref().unwrap_or(c.request.uri.path());
    if *method == Method::CONNECT || path == "/" || !path.starts_with('/') {
        return None;
    }
    let found = |path: &str| {
        tree.find(path, &mut crate::router::Params::default())
            .is_some()
    };
    if table.settings.redirect_trailing_slash && found(&toggle_slash(path)) {
        // From the path as it came: an escaped slash must stay escaped, unless it is the one too many.
        let raw = c.request.uri.path();
        let mended = match raw.get(raw.len().saturating_sub(3)..) {
            Some("%2F" | "%2f") if path.ends_with('/') => raw[..raw.len() - 3].to_owned(),
            _ => toggle_slash(raw),
        };
        return Some(redirect_to(c, raw_location(&mended)));
    }
    if table.settings.redirect_fixed_path {
        let cleaned = clean(path);
        let fixed = tree.find_folded(&cleaned).or_else(|| {
            let other = table.settings.redirect_trailing_slash;
            other
                .then(|| tree.find_folded(&toggle_slash(&cleaned)))
                .flatten()
        })?;
        // With `use_raw_path` it was never decoded.
        let fixed = if table.settings.use_raw_path {
            raw_location(&fixed)
        } else {
            location(&fixed)
        };
        return Some(redirect_to(c, fixed));
    }
    None
}

fn toggle_slash(path: &str) -> String {
    match path.strip_suffix('/') {
        Some("") => path.to_owned(),
        Some(without) => without.to_owned(),
        None => format!("{path}/"),
    }
}

fn redirect_to(c: &Context, mut target: String) -> Response<Body> {
    if let Some(prefix) = forwarded_prefix(&c.request.headers) {
        target.insert_str(0, &prefix);
    }
    if let Some(query) = c.request.uri.query() {
        target.push('?');
        target.push_str(&ascii(query));
    }
    let status = if c.request.method == Method::GET {
        StatusCode::MOVED_PERMANENTLY
    } else {
        StatusCode::TEMPORARY_REDIRECT
    };
    let body = redirect_body(&c.request.method, status, &target);
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    if let Ok(target) = HeaderValue::from_str(&target) {
        response.headers_mut().insert(header::LOCATION, target);
    }
    if let Some(body) = body {
        let html = HeaderValue::from_static(crate::render::HTML);
        response.headers_mut().insert(header::CONTENT_TYPE, html);
        *response.body_mut() = body.into();
    }
    response
}

/// The short page for those who do not follow a redirect by themselves; only for GET.
pub(crate) fn redirect_body(method: &Method, status: StatusCode, target: &str) -> Option<String> {
    let reason = status.canonical_reason().unwrap_or("Elsewhere");
    let mut href = String::with_capacity(target.len());
    for c in target.chars() {
        match c {
            '&' => href.push_str("&amp;"),
            '<' => href.push_str("&lt;"),
            '>' => href.push_str("&gt;"),
            '"' => href.push_str("&#34;"),
            '\'' => href.push_str("&#39;"),
            other => href.push(other),
        }
    }
    (*method == Method::GET).then(|| format!("<a href=\"{href}\">{reason}</a>.\n\n"))
}

/// What a proxy says that it has taken from the path, made harmless: only letters, digits, `-` and
/// single slashes, one of them at the beginning and none at the end. Both a host (`//host`) and a
/// step upwards (`..`) are impossible in it.
fn forwarded_prefix(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("x-forwarded-prefix")?.to_str().ok()?;
    let kept: String = value
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '-'))
        .collect();
    let kept = single_slashes(&kept);
    let kept = kept.trim_matches('/');
    (!kept.is_empty()).then(|| format!("/{kept}"))
}

fn bad_request() -> Response<Body> {
    let mut response = Response::new(Body::from("400 bad request"));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    let text = HeaderValue::from_static("text/plain");
    response.headers_mut().insert(header::CONTENT_TYPE, text);
    response
}
