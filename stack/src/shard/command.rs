//! What other threads and other shards want of this one. They never touch its state: they leave a command,
//! which the next turn carries out.

use std::fmt;
use std::net::IpAddr;

use smoltcp::wire::{EthernetAddress, IpCidr};
use wirestack_nic::FrameMeta;

use super::{Mail, Shard};
use crate::config::check_host_address;
use crate::ingress::input::Way;
use crate::ip::route::{Route, RouteId};
use crate::ip::{Address, Origin};
use crate::observe::DropReason;

/// Something to be done at the start of a turn.
#[non_exhaustive]
pub enum Command {
    /// A message of another shard.
    Mail(Mail),
    /// Adds an address for ever. One that no host can have is logged and not taken, as is one too many.
    AddAddress(IpCidr),
    /// Takes an address away.
    RemoveAddress(IpAddr),
    /// Adds a route, in place of one with the same prefix, gateway and origin. One that cannot be is logged.
    AddRoute(Route),
    /// Takes a route away.
    RemoveRoute(RouteId),
    /// A neighbour that is never asked for.
    AddNeighbor(IpAddr, EthernetAddress),
    /// The link came up (`true`) or went down: what is known of it is told or asked anew.
    LinkChanged(bool),
    /// Anything else.
    Call(Box<dyn FnOnce(&mut Shard) + Send>),
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mail(Mail::Packet(_)) => "Mail(Packet)",
            Self::Mail(Mail::Control(_)) => "Mail(Control)",
            Self::Mail(Mail::Learned(_)) => "Mail(Learned)",
            Self::AddAddress(_) => "AddAddress",
            Self::RemoveAddress(_) => "RemoveAddress",
            Self::AddRoute(_) => "AddRoute",
            Self::RemoveRoute(_) => "RemoveRoute",
            Self::AddNeighbor(..) => "AddNeighbor",
            Self::LinkChanged(_) => "LinkChanged",
            Self::Call(_) => "Call",
        })
    }
}

impl Shard {
    /// Leaves a command for the next turn.
    ///
    /// # Errors
    /// There are too many already; here it is back.
    pub fn push_command(&mut self, command: Command) -> Result<(), Command> {
        if self.commands.len() >= self.config.mail_len_max {
            return Err(command);
        }
        self.commands.push_back(command);
        Ok(())
    }

    /// The next message for another shard, and which one: to be pushed there as [`Command::Mail`].
    pub fn next_mail(&mut self) -> Option<(usize, Mail)> {
        self.mail.take()
    }

    /// So many messages to others found no room there.
    pub(crate) fn count_lost_mail(&mut self, count: usize) {
        for _ in 0..count {
            self.count_drop(DropReason::MailboxFull);
        }
    }

    /// Tells all other shards what a frame about the link has told this one, and what it has not: what is nothing
    /// here may be the answer to a question of another shard, or about an address of all of them. What came from
    /// another shard is known to all. What finds no room is counted.
    pub(crate) fn mail_if_of_use(&mut self, frame: &[u8], result: Result<(), DropReason>) {
        use DropReason as Reason;
        let is_of_use = matches!(
            result,
            Ok(())
                | Err(Reason::ArpUnsolicited | Reason::ArpConflict)
                | Err(Reason::NdpUnsolicited | Reason::NdpConflict)
                | Err(Reason::NeighborNoRoom | Reason::RouterAdvertisementNoRoom)
        );
        if !is_of_use || self.is_mailed {
            return;
        }
        for _ in 0..self.mail.send_to_others(frame) {
            self.count_drop(DropReason::MailboxFull);
        }
    }

    /// Carries commands out. True: the budget was spent before they were.
    pub(crate) fn apply_commands(&mut self) -> bool {
        for _ in 0..self.budgets.commands {
            let Some(command) = self.commands.pop_front() else { return false };
            self.apply(command);
        }
        !self.commands.is_empty()
    }

    fn apply(&mut self, command: Command) {
        match command {
            Command::Mail(Mail::Packet(packet)) => {
                self.counters.mail_received += 1;
                let verdict = self.handle_reassembled(&packet, Way::Reassembled);
                self.count(verdict, &packet);
            }
            Command::Mail(Mail::Control(frame)) => self.handle_control(&frame),
            Command::Mail(Mail::Learned(learned)) => self.learn(*learned),
            Command::AddAddress(cidr) => match check_host_address(cidr) {
                Ok(()) => self.add_address(Address::preferred(cidr, Origin::Static)),
                Err(error) => log::warn!("{error}"),
            },
            Command::RemoveAddress(address) => self.remove_address(address),
            Command::AddRoute(route) => self.insert_route(route),
            Command::RemoveRoute(id) => {
                self.routes.remove(&id);
            }
            Command::AddNeighbor(address, mac) => {
                if let Err(reason) = self.neighbors.insert_static(self.now, address, mac) {
                    self.count_drop(reason);
                }
                self.drain_neighbors();
            }
            Command::LinkChanged(up) => self.link_changed(up),
            Command::Call(call) => call(self),
        }
    }

    /// A frame about the link that another shard has answered: what it tells is learned, and no answer leaves
    /// from here.
    fn handle_control(&mut self, frame: &[u8]) {
        self.counters.mail_received += 1;
        // What this shard itself had to say goes before: of what comes up now, nothing is sent.
        self.drain_neighbors();
        let mailed = std::mem::replace(&mut self.is_mailed, true);
        let verdict = self.judge(frame, &FrameMeta::default());
        self.is_mailed = mailed;
        self.count(verdict, frame);
    }
}
