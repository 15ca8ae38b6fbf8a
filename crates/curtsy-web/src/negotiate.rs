//! The answer's format by what the client accepts.

use crate::context::Context;
use crate::error::Error;
use crate::response::IntoStatus;
use http::{StatusCode, header};
use serde::Serialize;

/// A format that a handler can answer in.
///
/// ```
/// # use curtsy_web::Context;
/// # async fn example(c: &mut Context) {
/// use curtsy_web::Offer;
///
/// c.negotiate(200, &[Offer::Json, Offer::Html("tea.html"), Offer::Text], &["green"]);
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Offer<'n> {
    /// JSON.
    Json,
    /// A template of this name. Without the `html` feature it is a 500.
    Html(&'n str),
    /// XML.
    #[cfg(feature = "xml")]
    Xml,
    /// YAML.
    #[cfg(feature = "yaml")]
    Yaml,
    /// TOML.
    #[cfg(feature = "toml")]
    Toml,
    /// MessagePack.
    #[cfg(feature = "msgpack")]
    MsgPack,
    /// Text: a value that is one is sent as it is, another as JSON.
    Text,
}

impl Offer<'_> {
    fn kind(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Html(_) => "text/html",
            #[cfg(feature = "xml")]
            Self::Xml => "application/xml",
            #[cfg(feature = "yaml")]
            Self::Yaml => "application/yaml",
            #[cfg(feature = "toml")]
            Self::Toml => "application/toml",
            #[cfg(feature = "msgpack")]
            Self::MsgPack => "application/msgpack",
            Self::Text => "text/plain",
        }
    }
}

impl Context {
    /// Which of some media types the client likes best; the first if it does not say. Its weights
    /// (`q=`) count, then its order.
    ///
    /// ```
    /// # use curtsy_web::{Context, Engine, test::Client};
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let mut r = Engine::new();
    /// r.get("/", async |c: &mut Context| {
    ///     let kind = c.negotiate_format(&["text/html", "application/json"]);
    ///     c.string(200, kind.unwrap_or("none"));
    /// });
    /// let client = Client::new(r);
    /// let answer = client.get("/").header("Accept", "application/*, text/html;q=0.5").send().await;
    /// assert_eq!(answer.text(), "application/json");
    /// # });
    /// ```
    pub fn negotiate_format<'o>(&self, offered: &[&'o str]) -> Option<&'o str> {
        let lines = self.headers().get_all(header::ACCEPT).iter();
        let lines: Vec<&str> = lines.filter_map(|line| line.to_str().ok()).collect();
        best(&lines.join(","), offered)
    }

    /// Answers in the format that the client likes best; 406 if none of the offers will do.
    ///
    /// ```
    /// # use curtsy_web::{Context, Engine, Offer};
    /// let mut r = Engine::new();
    /// r.get("/", async |c: &mut Context| {
    ///     c.negotiate(200, &[Offer::Json], &["a", "b"]);
    /// });
    /// ```
    pub fn negotiate<T: Serialize>(
        &mut self,
        status: impl IntoStatus,
        offers: &[Offer<'_>],
        value: &T,
    ) {
        let kinds: Vec<&str> = offers.iter().map(|offer| offer.kind()).collect();
        let best = self.negotiate_format(&kinds);
        let offer = offers.iter().find(|offer| Some(offer.kind()) == best);
        self.response_headers_mut()
            .append(header::VARY, http::HeaderValue::from_static("accept"));
        match offer {
            None => {
                let message = "none of the formats that you accept is offered";
                self.fail(Error::new(StatusCode::NOT_ACCEPTABLE, message));
            }
            Some(Offer::Json) => self.json(status, value),
            #[cfg(feature = "html")]
            Some(Offer::Html(name)) => self.html(status, name, value),
            #[cfg(not(feature = "html"))]
            Some(Offer::Html(name)) => {
                let cause = format!("no template {name:?}: the `html` feature is off");
                self.fail(Error::render(cause));
            }
            #[cfg(feature = "xml")]
            Some(Offer::Xml) => self.xml(status, value),
            #[cfg(feature = "yaml")]
            Some(Offer::Yaml) => self.yaml(status, value),
            #[cfg(feature = "toml")]
            Some(Offer::Toml) => self.toml(status, value),
            #[cfg(feature = "msgpack")]
            Some(Offer::MsgPack) => self.msgpack(status, value),
            Some(Offer::Text) => match serde_json::to_value(value) {
                Ok(serde_json::Value::String(text)) => self.string(status, text),
                Ok(other) => self.string(status, other.to_string()),
                Err(error) => self.fail(Error::render(error)),
            },
        }
    }
}

/// The offer of the greatest weight; among equals the one that the client names first. Of several
/// ranges that an offer lies in, the narrowest counts: `text/html;q=0, */*` is all but HTML.
fn best<'o>(accept: &str, offered: &[&'o str]) -> Option<&'o str> {
    if accept.trim().is_empty() {
        return offered.first().copied();
    }
    let mut found: Option<(u16, usize, &'o str)> = None;
    for &offer in offered {
        let Some((weight, place)) = weigh(accept, offer) else {
            continue;
        };
        let is_better = match found {
            None => weight > 0,
            Some((best, first, _)) => weight > best || (weight == best && place < first),
        };
        if is_better {
            found = Some((weight, place, offer));
        }
    }
    found.map(|(.., offer)| offer)
}

/// The weight of an offer, and the place of the range that gives it in the list.
fn weigh(accept: &str, offer: &str) -> Option<(u16, usize)> {
    let mut narrowest: Option<(u8, u16, usize)> = None;
    for (place, range) in accept.split(',').enumerate() {
        let mut parts = range.split(';').map(str::trim);
        let Some(narrowness) = narrowness(parts.next().unwrap_or(""), offer) else {
            continue;
        };
        if narrowest.is_none_or(|(other, ..)| narrowness > other) {
            let weight = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
            narrowest = Some((narrowness, weight.map_or(1000, thousandths), place));
        }
    }
    narrowest.map(|(_, weight, place)| (weight, place))
}

/// How narrow a range is that a type lies in: everything, a family, or the type itself.
fn narrowness(range: &str, kind: &str) -> Option<u8> {
    match range.strip_suffix('*') {
        Some("" | "*/") => Some(0),
        Some(of) if of.ends_with('/') => {
            let head = kind.get(..of.len());
            head.is_some_and(|head| head.eq_ignore_ascii_case(of))
                .then_some(1)
        }
        _ => range.eq_ignore_ascii_case(kind).then_some(2),
    }
}

/// A weight from 0 to 1 in thousandths; what is none weighs nothing.
fn thousandths(text: &str) -> u16 {
    match text.split_once('.') {
        None => u16::from(text == "1") * 1000,
        Some((whole, rest)) => {
            let digits: String = rest.chars().chain("000".chars()).take(3).collect();
            let rest: u16 = digits.parse().unwrap_or(0);
            (u16::from(whole == "1") * 1000 + rest).min(1000)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::best;

    #[test]
    fn the_best_offer() {
        let offers = ["application/json", "text/html"];
        for (accept, expected) in [
            ("", Some("application/json")),
            ("*/*", Some("application/json")),
            ("text/html", Some("text/html")),
            ("text/*", Some("text/html")),
            ("text/html, application/json", Some("text/html")),
            (
                "text/html;q=0.4, application/json;q=0.5",
                Some("application/json"),
            ),
            ("text/html;q=0, */*;q=0.1", Some("application/json")),
            ("application/json;q=0, */*", Some("text/html")),
            ("*/*, application/json;q=0.1", Some("text/html")),
            (
                "text/*;q=0.9, text/html;q=0.1, */*;q=0.2",
                Some("application/json"),
            ),
            ("application/json;Q=0.1, text/html;q=0.2", Some("text/html")),
            ("TEXT/HTML;q=1.0", Some("text/html")),
            ("image/png", None),
            ("text/html;q=0", None),
            ("text/html;q=x", None),
        ] {
            assert_eq!(best(accept, &offers), expected, "{accept}");
        }
    }
}
