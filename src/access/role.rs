//! Roles, and the rights that each of them has.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a caller is to the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Sees everything and changes nothing.
    Viewer,
    /// Sees and steers their own tasks.
    User,
    /// Runs tasks of given types and queues.
    Worker,
    /// Steers everything.
    Operator,
    /// Steers everything, and says who else may what.
    Admin,
}

/// One thing that a caller may do. Which tasks it may be done to, is for its [`Sight`](super::Sight) to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Right {
    /// Look at tasks, their results, history and logs.
    See,
    /// Look at lists and streams of tasks, and count them.
    Watch,
    /// Hand in tasks and workflows.
    Submit,
    Cancel,
    Retry,
    /// Change what waits, and delete what has ended.
    Change,
    /// Claim tasks, and report on them.
    Work,
    /// Look at queues, limits, schedules, task types and callbacks.
    SeeSettings,
    /// Change them.
    ChangeSettings,
    /// Look at workers, and at the hub's own numbers.
    SeeHub,
    /// Make scoped tokens.
    Mint,
    /// Make and revoke API tokens, and read the audit.
    Administer,
}

impl Right {
    pub const ALL: [Right; 12] = [
        Right::See,
        Right::Watch,
        Right::Submit,
        Right::Cancel,
        Right::Retry,
        Right::Change,
        Right::Work,
        Right::SeeSettings,
        Right::ChangeSettings,
        Right::SeeHub,
        Right::Mint,
        Right::Administer,
    ];

    /// The word on the wire.
    pub const fn word(self) -> &'static str {
        match self {
            Right::See => "see",
            Right::Watch => "watch",
            Right::Submit => "submit",
            Right::Cancel => "cancel",
            Right::Retry => "retry",
            Right::Change => "change",
            Right::Work => "work",
            Right::SeeSettings => "see_settings",
            Right::ChangeSettings => "change_settings",
            Right::SeeHub => "see_hub",
            Right::Mint => "mint",
            Right::Administer => "administer",
        }
    }

    /// What it is a right to, behind "may not".
    pub const fn words(self) -> &'static str {
        match self {
            Right::See => "look at tasks",
            Right::Watch => "list or watch tasks",
            Right::Submit => "submit tasks",
            Right::Cancel => "cancel tasks",
            Right::Retry => "retry tasks",
            Right::Change => "change or delete tasks",
            Right::Work => "work on tasks",
            Right::SeeSettings => "look at queues, schedules, types and limits",
            Right::ChangeSettings => "change queues, schedules, types and limits",
            Right::SeeHub => "look at workers, callbacks and the hub's numbers",
            Right::Mint => "make tokens",
            Right::Administer => "look after tokens",
        }
    }
}

/// A set of rights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights(u16);

impl Rights {
    /// Those of the list.
    pub const fn of(rights: &[Right]) -> Rights {
        let (mut set, mut at) = (0, 0);
        while at < rights.len() {
            set |= 1 << rights[at] as u8;
            at += 1;
        }
        Rights(set)
    }

    pub fn has(self, right: Right) -> bool {
        self.0 & (1 << right as u8) != 0
    }

    /// Those that are in it, in the order of the table.
    pub fn list(self) -> impl Iterator<Item = Right> {
        Right::ALL.into_iter().filter(move |right| self.has(*right))
    }

    /// Those that are in both.
    pub fn and(self, other: Rights) -> Rights {
        Rights(self.0 & other.0)
    }

    /// Those that are in either.
    pub fn or(self, other: Rights) -> Rights {
        Rights(self.0 | other.0)
    }
}

impl Role {
    pub const ALL: [Role; 5] = [Role::Viewer, Role::User, Role::Worker, Role::Operator, Role::Admin];

    /// The table of roles.
    pub const fn rights(self) -> Rights {
        use Right::{
            Administer, Cancel, Change, ChangeSettings, Mint, Retry, See, SeeHub, SeeSettings, Submit, Watch, Work,
        };
        match self {
            Role::Viewer => Rights::of(&[See, Watch, SeeSettings, SeeHub, Mint]),
            Role::User => Rights::of(&[See, Watch, Submit, Cancel, Retry, Change, SeeSettings, Mint]),
            Role::Worker => Rights::of(&[See, Work]),
            Role::Operator => {
                Rights::of(&[See, Watch, Submit, Cancel, Retry, Change, SeeSettings, ChangeSettings, SeeHub, Mint])
            }
            Role::Admin => Rights::of(&[
                See,
                Watch,
                Submit,
                Cancel,
                Retry,
                Change,
                Work,
                SeeSettings,
                ChangeSettings,
                SeeHub,
                Mint,
                Administer,
            ]),
        }
    }

    /// The word on the wire.
    pub const fn word(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::User => "user",
            Role::Worker => "worker",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Role, String> {
        let role = Role::ALL.into_iter().find(|role| role.word() == text);
        role.ok_or_else(|| "must be viewer, user, worker, operator or admin".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_and_rights() {
        let has = |role: Role, right| role.rights().has(right);
        assert!(Role::ALL.into_iter().all(|role| has(role, Right::See)));
        let only = |right| Role::ALL.into_iter().filter(move |role| has(*role, right)).collect::<Vec<_>>();
        assert_eq!(only(Right::Administer), [Role::Admin]);
        assert_eq!(only(Right::Work), [Role::Worker, Role::Admin]);
        assert_eq!(only(Right::ChangeSettings), [Role::Operator, Role::Admin]);
        assert_eq!(only(Right::Submit), [Role::User, Role::Operator, Role::Admin]);
        assert_eq!(only(Right::SeeHub), [Role::Viewer, Role::Operator, Role::Admin]);
        for role in Role::ALL {
            assert_eq!(role.word().parse(), Ok(role));
        }
        assert!("root".parse::<Role>().is_err());
    }
}
