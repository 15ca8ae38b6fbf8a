//! `curtsy top`: a server, live on a terminal.
//!
//! Three parts: the feed asks the server (a task), the model knows what is shown and what a key means (pure), the view
//! draws it (pure, too). The server is asked once an interval and whenever it tells of something; it does nothing for
//! that by itself.

mod feed;
mod model;
mod view;

use crate::duration;
use crate::steer::Whom;
use clap::Args;
use feed::Feed;
use model::{Key, Model, Next};
use ratatui::crossterm::event::{self, KeyCode, KeyEventKind, KeyModifiers};
use std::io::{IsTerminal, stdin, stdout};
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// How often one may ask.
const INTERVAL_LEAST: Duration = Duration::from_millis(100);

/// Watch a server or supervisor, and steer it by keys.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Keys: r reload · s switch a listener's mode · d drain · u undrain · q quit. Each asks first."
)]
pub(crate) struct Arguments {
    /// How often to ask the server: 100ms or more
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration::parse)]
    interval: Duration,
    #[command(flatten)]
    whom: Whom,
}

/// Shows it until a key ends it.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    if !stdin().is_terminal() || !stdout().is_terminal() {
        say("top needs a terminal; `curtsy status --json` tells the same to programs");
        return ExitCode::from(2);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let shown = match runtime {
        Ok(runtime) => {
            let shown = runtime.block_on(show(arguments));
            // Somewhere a thread waits for a key.
            runtime.shutdown_background();
            shown
        }
        Err(error) => Err(error.into()),
    };
    match shown {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&error.to_string());
            ExitCode::from(1)
        }
    }
}

async fn show(arguments: &Arguments) -> Result<(), curtsy::BoxError> {
    let interval = arguments.interval.max(INTERVAL_LEAST);
    // Whoever cannot be reached at first is told of on an ordinary terminal.
    let (mut feed, status) = Feed::begin(&arguments.whom, interval).await?;
    let mut ends = [
        signal(SignalKind::terminate())?,
        signal(SignalKind::hangup())?,
    ];
    let [terminated, hung_up] = &mut ends;
    let mut terminal = ratatui::try_init()?;
    let mut keys = keys();
    let mut model = Model::new(status);
    let ended: Result<(), curtsy::BoxError> = loop {
        if let Err(error) = terminal.draw(|frame| view::draw(frame, &model)) {
            break Err(error.into());
        }
        tokio::select! {
            told = feed.next() => model.hear(told),
            key = keys.recv() => match key.map(|key| model.press(key)) {
                Some(Next::Stay) => {}
                Some(Next::Order(order)) => feed.order(order),
                Some(Next::Quit) | None => break Ok(()),
            },
            _ = terminated.recv() => break Ok(()),
            _ = hung_up.recv() => break Ok(()),
        }
    };
    ratatui::restore();
    ended
}

/// The keys that are pressed, and [`Key::Other`] when the terminal has another size. Ends with the terminal.
fn keys() -> UnboundedReceiver<Key> {
    let (keys, pressed) = unbounded_channel();
    // Reading blocks; the process ends with a read under way.
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            let key = match event.as_key_event() {
                Some(key) if key.kind == KeyEventKind::Release => continue,
                Some(key) => meaning(key.code, key.modifiers),
                None => Key::Other,
            };
            if keys.send(key).is_err() {
                return;
            }
        }
    });
    pressed
}

#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "what is on keyboards beside these keys means nothing here"
)]
fn meaning(code: KeyCode, modifiers: KeyModifiers) -> Key {
    match code {
        KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => Key::Interrupt,
        KeyCode::Char(letter) => Key::Letter(letter.to_ascii_lowercase()),
        KeyCode::Esc => Key::Escape,
        KeyCode::Left | KeyCode::Up => Key::Before,
        KeyCode::Right | KeyCode::Down | KeyCode::Tab => Key::After,
        _ => Key::Other,
    }
}

fn say(text: &str) {
    crate::voice::say(&format!("curtsy: {text}\n"));
}
