//! What a request of HTTP/2 must be before a service sees it, where hyper lets more through.

use http::header::{EXPECT, HOST};
use http::uri::{Authority, Scheme};
use http::{Method, Request};

/// Whether a request says that it expects something of us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expects {
    Nothing,
    Something,
}

/// Why a request is malformed (RFC 9113, section 8), if it is.
pub(crate) fn judge<B>(request: &Request<B>) -> Result<Expects, &'static str> {
    let (method, uri) = (request.method(), request.uri());
    let authority = uri.authority();
    match authority {
        None if method == Method::CONNECT => return Err("CONNECT names no authority\n"),
        Some(authority) if authority.as_str().contains('@') => {
            return Err("the authority names a user\n");
        }
        Some(_) | None => {}
    }
    if uri.path() == "*" && method != Method::OPTIONS {
        return Err("only OPTIONS is for everything\n");
    }
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let mut expects = Expects::Nothing;
    // All that is asked of them is asked in one pass, which costs less than to look each up.
    for (name, value) in request.headers() {
        let value = value.as_bytes();
        if is_blank(value.first()) || is_blank(value.last()) {
            return Err("a header begins or ends with a blank\n");
        }
        if *name == HOST
            && let Some(authority) = authority
            && !is_same(authority, value, uri.scheme())
        {
            return Err("the Host header is not the authority\n");
        }
        if *name == EXPECT {
            expects = Expects::Something;
        }
    }
    Ok(expects)
}

/// Whether both name the same, the scheme's port left out or not.
fn is_same(authority: &Authority, host: &[u8], scheme: Option<&Scheme>) -> bool {
    let authority = authority.as_str().as_bytes();
    if authority.eq_ignore_ascii_case(host) {
        return true;
    }
    let port: &[u8] = match scheme == Some(&Scheme::HTTPS) {
        true => b":443",
        false => b":80",
    };
    let bare = |name: &[u8]| name.strip_suffix(port).unwrap_or(name).to_ascii_lowercase();
    bare(authority) == bare(host)
}

#[cfg(test)]
mod tests {
    use super::{Expects, judge};
    use http::{Method, Request};

    #[test]
    fn what_is_malformed_and_what_is_not() {
        let get = |uri: &str| Request::builder().uri(uri);
        for (request, is_malformed) in [
            (get("http://a/x"), false),
            (get("http://a/x").header("host", "A"), false),
            (get("http://a:80/x").header("host", "a"), false),
            (get("https://a/x").header("host", "a:443"), false),
            (get("http://a/x").header("host", "a:443"), true),
            (get("http://a/x").header("host", "b"), true),
            (get("http://u@a/x"), true),
            (get("*"), true),
            (get("*").method(Method::OPTIONS), false),
            (get("/x").header("host", "a").method(Method::CONNECT), true),
            (get("http://a/x").header("x", "a b"), false),
            (get("http://a/x").header("x", ""), false),
            (get("http://a/x").header("x", "a "), true),
            (get("http://a/x").header("x", "\ta"), true),
        ] {
            let request = request.body(()).unwrap();
            assert_eq!(judge(&request).is_err(), is_malformed, "{request:?}");
        }
    }

    #[test]
    fn what_is_expected_is_noticed() {
        let request = |name: &str| {
            Request::get("http://a/x")
                .header(name, "x")
                .body(())
                .unwrap()
        };
        assert_eq!(judge(&request("accept")), Ok(Expects::Nothing));
        assert_eq!(judge(&request("expect")), Ok(Expects::Something));
    }
}
