//! What a listener speaks: a value that is swapped while connections come in.
//!
//! Invariants:
//! - A connection is served to its end by the mode it was accepted under; it holds that mode's
//!   [`Epoch`].
//! - A switch retires exactly those connections that the new mode would not take: their next
//!   answer closes them, and idle ones linger. Nobody else notices.
//! - The listening socket has no part in it.

use crate::control::Event;
use crate::error::{Error, Kind};
use crate::proxy::ProxyPeers;
use crate::shared::{Orders, Shared};
use crate::tls::TlsConfig;
use arc_swap::{ArcSwap, Guard};
use curtsy_lifecycle::{Origin, Signal};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

/// What a listener speaks.
#[derive(Clone, Debug, Default)]
pub enum Mode {
    /// HTTP without encryption. A client that begins TLS is told so by a TLS alert.
    #[default]
    Plain,
    /// HTTPS. A client that speaks without encryption gets what [`PlainOnTls`] says.
    Tls(TlsConfig),
    /// Either, as the client's first byte says.
    Both(TlsConfig),
}

impl Mode {
    /// Its name.
    pub fn name(&self) -> ModeName {
        match self {
            Self::Plain => ModeName::Plain,
            Self::Tls(_) => ModeName::Tls,
            Self::Both(_) => ModeName::Both,
        }
    }

    /// What it does TLS with.
    pub fn tls(&self) -> Option<&TlsConfig> {
        match self {
            Self::Plain => None,
            Self::Tls(config) | Self::Both(config) => Some(config),
        }
    }
}

/// A mode by its name: `plain`, `tls` or `both`.
///
/// ```
/// use curtsy_server::ModeName;
///
/// assert_eq!("both".parse::<ModeName>()?, ModeName::Both);
/// assert_eq!(ModeName::Tls.to_string(), "tls");
/// # Ok::<(), curtsy_server::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ModeName {
    /// [`Mode::Plain`].
    Plain,
    /// [`Mode::Tls`].
    Tls,
    /// [`Mode::Both`].
    Both,
}

impl ModeName {
    /// The mode of this name, with `tls` to encrypt with.
    ///
    /// # Errors
    /// If the mode encrypts and there is nothing to do it with.
    pub fn with(self, tls: Option<&TlsConfig>) -> Result<Mode, Error> {
        match (self, tls) {
            (Self::Plain, _) => Ok(Mode::Plain),
            (Self::Tls, Some(tls)) => Ok(Mode::Tls(tls.clone())),
            (Self::Both, Some(tls)) => Ok(Mode::Both(tls.clone())),
            (Self::Tls | Self::Both, None) => Err(Error::new(
                Kind::Config,
                "there is no certificate to speak TLS with; give the server one first \
                 (`curtsy demo`: --cert and --key, or --tls self-signed)",
            )),
        }
    }
}

impl fmt::Display for ModeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Plain => "plain",
            Self::Tls => "tls",
            Self::Both => "both",
        })
    }
}

impl FromStr for ModeName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "plain" => Ok(Self::Plain),
            "tls" => Ok(Self::Tls),
            "both" => Ok(Self::Both),
            other => Err(Error::new(
                Kind::Config,
                format!("{other:?} is no mode; there are plain, tls and both"),
            )),
        }
    }
}

/// What a listener in mode `tls` does with a client that does not encrypt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PlainOnTls {
    /// It answers 400 and closes.
    #[default]
    Refuse400,
    /// It redirects the request to the same host and path under `https`, and closes.
    Redirect308,
    /// It serves the request.
    Serve,
}

/// A listener's mode from one switch to the next.
#[derive(Debug)]
pub(crate) struct Epoch {
    /// 0 for the first.
    pub(crate) number: u64,
    pub(crate) mode: Mode,
    pub(crate) plain_on_tls: PlainOnTls,
    pub(crate) proxies: Option<Arc<ProxyPeers>>,
    /// What its connections without and with encryption have in common.
    pub(crate) plain: Arc<Origin>,
    pub(crate) tls: Arc<Origin>,
}

impl Epoch {
    pub(crate) fn takes_plain(&self) -> bool {
        match &self.mode {
            Mode::Plain | Mode::Both(_) => true,
            Mode::Tls(_) => self.plain_on_tls == PlainOnTls::Serve,
        }
    }

    fn takes_tls(&self) -> bool {
        self.mode.tls().is_some()
    }

    /// Whether a connection goes straight to HTTP/1, without a look at its first bytes.
    #[inline]
    pub(crate) fn is_straight(&self) -> bool {
        matches!(self.mode, Mode::Plain) && self.proxies.is_none()
    }
}

/// A listener's name and mode, as all who accept for it and all who switch it see them.
#[derive(Debug)]
pub(crate) struct Board {
    pub(crate) name: String,
    current: ArcSwap<Epoch>,
    /// What a switch by name does TLS with; also held by whoever switches.
    reserve: Mutex<Option<TlsConfig>>,
}

/// What is asked of a listener beside its address.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) mode: Mode,
    pub(crate) reserve: Option<TlsConfig>,
    pub(crate) plain_on_tls: PlainOnTls,
    pub(crate) proxies: Option<Arc<ProxyPeers>>,
}

impl Board {
    pub(crate) fn new(name: String, signal: &Arc<Signal>, asked: Asked) -> Self {
        let origin = || Arc::new(Origin::new(name.clone(), signal.clone()));
        let reserve = asked.mode.tls().cloned().or(asked.reserve);
        let epoch = Epoch {
            number: 0,
            mode: asked.mode,
            plain_on_tls: asked.plain_on_tls,
            proxies: asked.proxies,
            plain: origin(),
            tls: origin(),
        };
        Self {
            name,
            current: ArcSwap::from_pointee(epoch),
            reserve: Mutex::new(reserve),
        }
    }

    #[inline]
    pub(crate) fn epoch(&self) -> Guard<Arc<Epoch>> {
        self.current.load()
    }

    /// What it does TLS with, or would.
    pub(crate) fn tls(&self) -> Option<TlsConfig> {
        let reserve = self.reserve.lock();
        reserve.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The mode of that name, with the certificates the listener has.
    pub(crate) fn named(&self, name: ModeName) -> Result<Mode, Error> {
        name.with(self.tls().as_ref()).map_err(|error| {
            let text = format!("listener {} cannot be switched", self.name);
            Error::because(Kind::Config, text, error)
        })
    }

    /// Speaks `mode` from now on; what it is that the connections to retire have in common.
    /// Nothing has changed if it fails.
    fn switch(&self, mode: Mode, signal: &Arc<Signal>) -> Result<Vec<Arc<Origin>>, Error> {
        if let Some(config) = mode.tls() {
            config.certificates().check()?;
        }
        let mut reserve = self.reserve.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = mode.tls() {
            *reserve = Some(config.clone());
        }
        // Under the lock: of two switches one is the second.
        let old = self.current.load_full();
        let mut next = Epoch {
            number: old.number + 1,
            mode,
            plain_on_tls: old.plain_on_tls,
            proxies: old.proxies.clone(),
            plain: old.plain.clone(),
            tls: old.tls.clone(),
        };
        let fresh = || Arc::new(Origin::new(self.name.clone(), signal.clone()));
        let mut retired = Vec::new();
        if !next.takes_plain() {
            retired.push(std::mem::replace(&mut next.plain, fresh()));
        }
        if !next.takes_tls() {
            retired.push(std::mem::replace(&mut next.tls, fresh()));
        }
        self.current.store(Arc::new(next));
        Ok(retired)
    }
}

/// Switches the listener of that name.
pub(crate) fn switch(shared: &Arc<Shared>, name: &str, mode: Mode) -> Result<(), Error> {
    let board = shared.board(name)?;
    let to = mode.name();
    let retired = board.switch(mode, &shared.signal)?;
    shared.life.switched();
    tracing::info!(listener = name, mode = %to, epoch = board.epoch().number, "switched");
    shared.crier.tell(&Event::Switched {
        listener: name.to_owned(),
        mode: to.to_string(),
    });
    for origin in &retired {
        origin.give(Orders::DRAIN);
        // Streams and WebSockets are told, and have the time they take.
        origin.retire();
    }
    for worker in shared.workers() {
        worker.ledger.wake_all();
    }
    // Any worker's runtime can count the time.
    if let Some(worker) = shared.workers().first() {
        drop(worker.handle.spawn(end_linger(shared.clone(), retired)));
    }
    Ok(())
}

async fn end_linger(shared: Arc<Shared>, retired: Vec<Arc<Origin>>) {
    tokio::time::sleep(shared.linger).await;
    for origin in &retired {
        origin.give(Orders::END_LINGER);
        for worker in shared.workers() {
            worker.lot.clear_origin(worker, origin);
        }
    }
    for worker in shared.workers() {
        worker.ledger.wake_all();
    }
}

#[cfg(test)]
mod tests {
    use super::{Asked, Board, Mode, ModeName};
    use crate::shared::Orders;
    use crate::tls::{Certificate, TlsConfig};
    use curtsy_lifecycle::Signal;
    use std::sync::Arc;

    fn config() -> TlsConfig {
        TlsConfig::new([Certificate::self_signed(["a.test"]).unwrap()]).unwrap()
    }

    /// Which of the connections a switch retires.
    #[test]
    fn a_switch_retires_what_the_new_mode_does_not_take() {
        let tls = config();
        let modes = [Mode::Plain, Mode::Tls(tls.clone()), Mode::Both(tls)];
        let signal = Arc::new(Signal::new());
        for from in &modes {
            for to in &modes {
                let asked = Asked {
                    mode: from.clone(),
                    ..Asked::default()
                };
                let board = Board::new("main".to_owned(), &signal, asked);
                let old = board.epoch().clone();
                for origin in board.switch(to.clone(), &signal).unwrap() {
                    origin.give(Orders::DRAIN);
                }
                let plain_stays = to.name() != ModeName::Tls;
                let tls_stays = to.name() != ModeName::Plain;
                let new = board.epoch().clone();
                assert_eq!(new.number, 1);
                assert_eq!(old.plain.orders() == 0, plain_stays, "{from:?} to {to:?}");
                assert_eq!(old.tls.orders() == 0, tls_stays, "{from:?} to {to:?}");
                assert_eq!(new.plain.orders(), 0);
                assert_eq!(new.tls.orders(), 0);
                assert_eq!(Arc::ptr_eq(&old.plain, &new.plain), plain_stays);
            }
        }
    }

    #[test]
    fn tls_by_name_wants_a_certificate() {
        let signal = Arc::new(Signal::new());
        let board = Board::new("main".to_owned(), &signal, Asked::default());
        assert!(board.named(ModeName::Plain).is_ok());
        assert!(board.named(ModeName::Tls).unwrap_err().is_config());
        board.switch(Mode::Tls(config()), &signal).unwrap();
        board.switch(Mode::Plain, &signal).unwrap();
        assert_eq!(board.named(ModeName::Both).unwrap().name(), ModeName::Both);
    }
}
