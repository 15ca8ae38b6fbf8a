//! Who hands over to whom: what the supervisor knows of the processes that can.
//!
//! A process that can hand over says so before it serves ([`Brokering::greeted`]). One of a new generation is given a
//! process of the serving one to take over from, if there is one that can and is free; all others are told to begin on
//! their own.
//!
//! Invariants:
//! - An heir is ready when what it was asked says so *and* its donor has stopped accepting ([`Brokering::is_given`]): a
//!   donor that were told to end before would end its heir with it.
//! - Heirs prove themselves when the whole generation is ready, and not before: until then every one of their donors can
//!   come back.

use super::machine::{Generation, Id};
use curtsy_handover::broker::{Broker, Word};
use curtsy_sys::{pidfd, seqpacket};
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedSender;

/// What a process says; its end, if nothing.
pub(crate) type Spoken = (Id, Option<Word>);

#[derive(Debug)]
struct Partner {
    pid: u32,
    generation: Generation,
    /// The handover's own, which goes up by one from each to the next.
    row: u32,
    broker: Arc<Broker>,
    /// Whom it takes over from, until that has given.
    takes_from: Option<Id>,
    /// Whom it gives to.
    gives_to: Option<Id>,
    is_on_trial: bool,
    /// Ready but for its donor.
    is_ready: bool,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Brokering {
    partners: HashMap<Id, Partner>,
    spoken: UnboundedSender<Spoken>,
}

impl Brokering {
    pub(crate) fn new(spoken: UnboundedSender<Spoken>) -> Self {
        Self {
            partners: HashMap::new(),
            spoken,
        }
    }

    /// A process can hand over: it is told its part. `serving` is the generation that serves.
    pub(crate) fn greeted(
        &mut self,
        (process, pid, generation): (Id, u32, Generation),
        pair: OwnedFd,
        serving: Option<Generation>,
    ) -> io::Result<()> {
        let broker = Arc::new(Broker::over(pair)?);
        let is_new = serving.is_some_and(|serving| serving != generation);
        let donor = self.partners.iter().find(|(_, partner)| {
            is_new && Some(partner.generation) == serving && partner.gives_to.is_none()
        });
        let donor = donor.map(|(id, _)| *id);
        let mut partner = Partner {
            pid,
            generation,
            row: generation.number,
            broker: broker.clone(),
            takes_from: None,
            gives_to: None,
            is_on_trial: false,
            is_ready: false,
        };
        match donor.and_then(|donor| Some((donor, self.partners.get_mut(&donor)?))) {
            None => broker.say(&Word::First(generation.number))?,
            Some((id, donor)) => {
                let (ours, theirs) = seqpacket::pair()?;
                let held = pidfd::open(pid)?;
                partner.row = donor.row + 1;
                partner.takes_from = Some(id);
                partner.is_on_trial = true;
                donor.gives_to = Some(process);
                broker.say(&Word::Take(partner.row, theirs))?;
                if donor.broker.say(&Word::Give(pid, ours, held)).is_err() {
                    // It is about to end; the new process notices, and so does whoever waits for that.
                    tracing::warn!(pid = donor.pid, "the old process does not listen");
                }
            }
        }
        self.partners.insert(process, partner);
        let spoken = self.spoken.clone();
        tokio::spawn(async move {
            while let Ok(word) = broker.next().await {
                if spoken.send((process, Some(word))).is_err() {
                    return;
                }
            }
            // Nobody to tell means that the supervisor has ended.
            let _ = spoken.send((process, None));
        });
        Ok(())
    }

    /// A process is ready as far as can be seen; whether nothing else is to be waited for.
    pub(crate) fn is_given(&mut self, process: Id) -> bool {
        match self.partners.get_mut(&process) {
            None => true,
            Some(partner) => {
                partner.is_ready = true;
                partner.takes_from.is_none()
            }
        }
    }

    /// A process has given, or will never: the one that is ready by this.
    pub(crate) fn given(&mut self, donor: Id) -> Option<Id> {
        let heir = self.partners.get(&donor)?.gives_to?;
        let partner = self.partners.get_mut(&heir)?;
        partner.takes_from = None;
        partner.is_ready.then_some(heir)
    }

    /// How a process is answered.
    pub(crate) fn reached(&self, process: Id) -> Option<Arc<Broker>> {
        self.partners
            .get(&process)
            .map(|partner| partner.broker.clone())
    }

    /// A generation is the service.
    pub(crate) fn bake(&mut self, generation: Generation) {
        for partner in self.partners.values_mut() {
            if partner.generation == generation && partner.is_on_trial {
                partner.is_on_trial = false;
                if partner.broker.say(&Word::Bake).is_err() {
                    tracing::warn!(pid = partner.pid, "the new process does not listen");
                }
            }
        }
    }

    /// A process has ended; one that is ready by this.
    pub(crate) fn ended(&mut self, process: Id) -> Option<Id> {
        let ready = self.given(process);
        self.partners.remove(&process);
        for partner in self.partners.values_mut() {
            if partner.gives_to == Some(process) {
                partner.gives_to = None;
            }
        }
        ready
    }
}

#[cfg(test)]
mod tests {
    use super::{Brokering, Generation, Id};
    use curtsy_handover::broker::{Broker, Role, Word};
    use curtsy_sys::seqpacket;
    use tokio::sync::mpsc::unbounded_channel;

    fn generation(number: u32, attempt: u32) -> Generation {
        Generation { number, attempt }
    }

    /// A process that has greeted, of a generation before which none failed; what it is told.
    async fn greet(
        brokering: &mut Brokering,
        id: u64,
        number: u32,
        serving: Option<u32>,
    ) -> (Broker, Role) {
        let serving = serving.map(|number| generation(number, number));
        greet_of(brokering, id, generation(number, number), serving).await
    }

    async fn greet_of(
        brokering: &mut Brokering,
        id: u64,
        generation: Generation,
        serving: Option<Generation>,
    ) -> (Broker, Role) {
        let (ours, theirs) = seqpacket::pair().unwrap();
        let process = Broker::over(ours).unwrap();
        let pid = std::process::id();
        brokering
            .greeted((Id(id), pid, generation), theirs, serving)
            .unwrap();
        let role = process.role().await.unwrap();
        (process, role)
    }

    #[tokio::test]
    async fn each_heir_has_a_donor_of_its_own_or_begins_alone() {
        let (spoken, mut heard) = unbounded_channel();
        let mut brokering = Brokering::new(spoken);
        let (donor, role) = greet(&mut brokering, 1, 0, None).await;
        assert!(matches!(role, Role::First { generation: 0 }));
        assert!(brokering.is_given(Id(1)));
        // Started again while its generation serves.
        let (_again, role) = greet(&mut brokering, 2, 0, Some(0)).await;
        assert!(matches!(role, Role::First { generation: 0 }));
        brokering.ended(Id(2));

        let (heir, role) = greet(&mut brokering, 3, 1, Some(0)).await;
        assert!(matches!(role, Role::Heir { generation: 1, .. }));
        assert!(matches!(donor.next().await.unwrap(), Word::Give(..)));
        let (_other, role) = greet(&mut brokering, 4, 1, Some(0)).await;
        assert!(matches!(role, Role::First { generation: 1 }));

        assert!(!brokering.is_given(Id(3)), "its donor accepts");
        donor.say(&Word::Given).unwrap();
        let (who, word) = heard.recv().await.unwrap();
        assert!(who == Id(1) && matches!(word, Some(Word::Given)));
        assert_eq!(brokering.given(Id(1)), Some(Id(3)));
        brokering.bake(generation(1, 1));
        assert!(matches!(heir.next().await.unwrap(), Word::Bake));
        // Once.
        brokering.bake(generation(1, 1));
        drop(donor);
        let (who, word) = heard.recv().await.unwrap();
        assert!(who == Id(1) && word.is_none());
        assert_eq!(brokering.ended(Id(1)), Some(Id(3)));
        // The next of the row, after a reload that failed.
        let serving = Some(generation(1, 1));
        let (_next, role) = greet_of(&mut brokering, 5, generation(2, 3), serving).await;
        assert!(matches!(role, Role::Heir { generation: 2, .. }));
    }

    #[tokio::test]
    async fn a_donor_that_ends_holds_nobody_up_and_one_whose_heir_ends_is_free() {
        let (spoken, _heard) = unbounded_channel();
        let mut brokering = Brokering::new(spoken);
        let (_donor, _) = greet(&mut brokering, 1, 0, None).await;
        let (heir, _) = greet(&mut brokering, 2, 1, Some(0)).await;
        assert!(!brokering.is_given(Id(2)));
        drop(heir);
        assert_eq!(brokering.ended(Id(2)), None);
        let again = generation(1, 2);
        let serving = Some(generation(0, 0));
        let (_heir, role) = greet_of(&mut brokering, 3, again, serving).await;
        assert!(matches!(role, Role::Heir { generation: 1, .. }));
        assert!(!brokering.is_given(Id(3)));
        assert_eq!(brokering.ended(Id(1)), Some(Id(3)));
    }

    #[tokio::test]
    async fn what_is_left_of_a_failed_generation_is_not_its_successor() {
        let (spoken, _heard) = unbounded_channel();
        let mut brokering = Brokering::new(spoken);
        let (_donor, _) = greet(&mut brokering, 1, 0, None).await;
        // On trial, and told to end: it takes its time.
        let (failed, _) = greet(&mut brokering, 2, 1, Some(0)).await;
        let again = generation(1, 2);
        let serving = Some(generation(0, 0));
        let (second, role) = greet_of(&mut brokering, 3, again, serving).await;
        assert!(matches!(role, Role::First { generation: 1 }), "{role:?}");
        brokering.bake(again);
        // Nor is it one to take over from.
        let third = generation(2, 3);
        let (_third, role) = greet_of(&mut brokering, 4, third, Some(again)).await;
        assert!(matches!(role, Role::Heir { generation: 2, .. }), "{role:?}");
        assert!(matches!(second.next().await.unwrap(), Word::Give(..)));
        // It was told nothing: this is the next that it hears.
        let to_failed = brokering.reached(Id(2)).unwrap();
        to_failed.say(&Word::Serves(7)).unwrap();
        assert!(matches!(failed.next().await.unwrap(), Word::Serves(7)));
    }
}
