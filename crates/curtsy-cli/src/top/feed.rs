//! What `top` hears from the server, and the way back for orders.
//!
//! When the server ends, the feed looks for whoever serves in its place (its heir, after a reload) until there is one.

use super::model::{Order, Told};
use crate::steer::Whom;
use curtsy::BoxError;
use curtsy::control::{Control, Event, Status};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{MissedTickBehavior, interval};

/// The way from and to the server.
pub(super) struct Feed {
    told: UnboundedReceiver<Told>,
    teller: UnboundedSender<Told>,
    whom: Whom,
}

impl Feed {
    pub(super) async fn begin(whom: &Whom, every: Duration) -> Result<(Self, Status), BoxError> {
        let (control, status) = find(whom).await?;
        let (teller, told) = unbounded_channel();
        tokio::spawn(feed(whom.clone(), control, every, teller.clone()));
        let feed = Self {
            told,
            teller,
            whom: whom.clone(),
        };
        Ok((feed, status))
    }

    pub(super) async fn next(&mut self) -> Told {
        match self.told.recv().await {
            Some(told) => told,
            // Never: this value holds a sender.
            None => std::future::pending().await,
        }
    }

    /// Carries an order out; what came of it is told.
    pub(super) fn order(&self, order: Order) {
        let (whom, teller) = (self.whom.clone(), self.teller.clone());
        tokio::spawn(async move {
            let text = order.to_string();
            let done = async {
                // A connection of its own: a reload takes its time.
                let mut control = whom.connect().await?;
                control.ask(order.command()).await?;
                Ok::<_, BoxError>(())
            };
            let result = done.await.map_err(|error| error.to_string());
            // Nobody to tell means that `top` has ended.
            let _ = teller.send(Told::Obeyed(text, result));
        });
    }
}

async fn find(whom: &Whom) -> Result<(Control, Status), BoxError> {
    let mut control = whom.connect().await?;
    let status = control.listen().await?;
    Ok((control, status))
}

/// Tells until nobody listens.
async fn feed(whom: Whom, mut control: Control, every: Duration, teller: UnboundedSender<Told>) {
    loop {
        let lost = follow(&mut control, every, &teller).await;
        if teller.send(Told::Lost(lost)).is_err() {
            return;
        }
        control = loop {
            tokio::time::sleep(every).await;
            if let Ok((found, status)) = find(&whom).await {
                if teller.send(Told::Status(Box::new(status))).is_err() {
                    return;
                }
                break found;
            }
        };
    }
}

/// Tells of this server until it is gone; why it is.
async fn follow(control: &mut Control, every: Duration, teller: &UnboundedSender<Told>) -> String {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last_words = "the server is gone".to_owned();
    loop {
        tokio::select! {
            event = control.event() => match event {
                Ok(Some((event, _))) => {
                    if let Event::Ended { text, .. } = &event {
                        last_words.clone_from(text);
                    }
                    if teller.send(Told::Event(Box::new(event))).is_err() {
                        return last_words;
                    }
                }
                Ok(None) => return last_words,
                Err(error) => return error.to_string(),
            },
            _ = ticks.tick() => match control.status().await {
                Ok(status) => {
                    if teller.send(Told::Status(Box::new(status))).is_err() {
                        return last_words;
                    }
                }
                Err(error) => {
                    // It ended while it was asked, and may have said how.
                    while let Ok(Some((event, _))) = control.event().await {
                        if let Event::Ended { text, .. } = &event {
                            let text = text.clone();
                            // Nobody to tell means that `top` has ended.
                            let _ = teller.send(Told::Event(Box::new(event)));
                            return text;
                        }
                    }
                    return error.to_string();
                }
            },
        }
    }
}
