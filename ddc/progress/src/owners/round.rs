//! A round: all partitions that wait go through the steps together.

use std::collections::BTreeMap;
use std::sync::Arc;

use ddc_link::receiver::PartitionKey;
use ddc_wire::Epoch;

use super::judge::{Standing, standing};
use super::{Action, ClaimToCommit, MAX_CLAIMS, Notice, Owners, Stage, State};
use crate::name::LinkName;
use crate::table::{ProgressTable, Rival};

/// The partitions on their way to be written.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// Not yet committed; at most [`MAX_CLAIMS`].
    claims: Vec<ClaimToCommit>,
    /// Claimed, and neither lost nor free to be written.
    members: Vec<Arc<PartitionKey>>,
    /// The fence that is on its way: in favour of which partitions, and the claims on them that it ends.
    fence: Vec<(Arc<PartitionKey>, LinkName, Epoch)>,
    /// The topic was read since the claims were committed and the last fence was raised.
    is_read: bool,
}

impl Owners {
    /// The next step of the round; begins one if partitions wait.
    pub(super) fn proceed(&mut self, table: &ProgressTable) -> Option<Action> {
        if let Stage::Idle = self.stage {
            self.stage = Stage::Round(self.begin_round()?);
        }
        let Stage::Round(round) = &mut self.stage else { return None };
        if !round.claims.is_empty() {
            let claims = round.claims.clone();
            return Some(Action::CommitClaims(self.issue(), claims));
        }
        let members = std::mem::take(&mut round.members);
        let is_read = round.is_read;
        let mut fences = BTreeMap::<LinkName, Vec<_>>::new();
        let mut left = Vec::new();
        for key in members {
            let unfenced = self.advance(table, &key, is_read);
            let Some(unfenced) = unfenced else { continue };
            for Rival { link, epoch } in unfenced {
                fences.entry(link.clone()).or_default().push((Arc::clone(&key), link, epoch));
            }
            left.push(key);
        }
        let Stage::Round(round) = &mut self.stage else { return None };
        if left.is_empty() {
            self.stage = Stage::Idle;
            return None;
        }
        round.members = left;
        match fences.pop_first() {
            Some((link, fence)) => {
                round.fence = fence;
                Some(Action::Fence(self.issue(), link))
            }
            None => Some(Action::ReadToEnd(self.issue())),
        }
    }

    fn begin_round(&mut self) -> Option<Round> {
        let mut round = Round { members: std::mem::take(&mut self.recheck), ..Round::default() };
        while round.claims.len() < MAX_CLAIMS {
            let Some(key) = self.waiting.pop_first() else { break };
            let waits = self.partitions.get(&key).filter(|known| known.state == State::Waiting);
            if let Some(partition) = waits {
                round.claims.push(ClaimToCommit { epoch: partition.target, key });
            }
        }
        (!round.claims.is_empty() || !round.members.is_empty()).then_some(round)
    }

    /// Looks at one member. `None`: it is out of the round. Else the links that are still to be fenced for it.
    fn advance(
        &mut self,
        table: &ProgressTable,
        key: &Arc<PartitionKey>,
        is_read: bool,
    ) -> Option<Vec<Rival>> {
        let partition = self.partitions.get_mut(key).filter(|known| known.state == State::Claimed)?;
        let claimed = partition.claimed?;
        match standing(table, &self.config.link, key, claimed) {
            Standing::Refused(why) => {
                partition.state = State::Refused;
                self.notices.push_back(Notice::Refused { key: Arc::clone(key), why });
                return None;
            }
            Standing::Outranked(Rival { link: to, epoch }) => {
                partition.state = State::Lost;
                self.notices.push_back(Notice::Lost { key: Arc::clone(key), to, epoch });
                return None;
            }
            Standing::Free => {}
        }
        let mut unfenced = Vec::new();
        if self.config.fencing {
            let others = table.rivals(key, &self.config.link);
            unfenced.extend(others.filter(|rival| partition.fenced.get(&rival.link) < Some(&rival.epoch)));
        }
        if unfenced.is_empty() && is_read {
            partition.state = State::Ready;
            self.notices.push_back(Notice::MayWrite { key: Arc::clone(key), progress: None });
            return None;
        }
        Some(unfenced)
    }

    /// The action on its way is done.
    pub(super) fn done(&mut self) {
        match &mut self.stage {
            Stage::Rebuild if self.started => self.stage = Stage::Idle,
            Stage::Rebuild => self.stage = Stage::FirstRead,
            Stage::FirstRead => {
                self.started = true;
                self.stage = Stage::Idle;
                self.notices.push_back(Notice::Started);
            }
            // Nothing is issued while nothing is to be done.
            Stage::Idle => {}
            Stage::Round(round) if !round.claims.is_empty() => {
                for ClaimToCommit { key, epoch } in round.claims.drain(..) {
                    let Some(partition) = self.partitions.get_mut(&key) else { continue };
                    (partition.claimed, partition.state) = (Some(epoch), State::Claimed);
                    round.members.push(key);
                }
            }
            Stage::Round(round) if !round.fence.is_empty() => {
                for (key, link, epoch) in round.fence.drain(..) {
                    if let Some(partition) = self.partitions.get_mut(&key) {
                        let fenced = partition.fenced.entry(link).or_insert(epoch);
                        *fenced = epoch.max(*fenced);
                    }
                }
                round.is_read = false;
            }
            Stage::Round(round) => round.is_read = true,
        }
    }
}
