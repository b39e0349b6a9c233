//! The quota: how many bytes of keys and values a copy holds before it refuses more, as etcd's `--quota-backend-bytes`.
//!
//! Each member measures its own bytes in use before it lets a command go to all. At the quota the command is refused with
//! [`Error::NoSpace`] and the alarm [`AlarmKind::NoSpace`] raised, which is a command itself: from then on every member refuses puts and
//! new leases, until the alarm is deactivated. Deletes and compaction, which free space, go on.

use crate::{Alarm, AlarmKind, Command, Error, Outcome, Replica, mvcc::takes_space};

/// A copy's quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quota {
    /// Most bytes in use (see [`StoreStatus::size_in_use`](crate::StoreStatus::size_in_use)); 0 for no quota.
    pub bytes: u64,
    /// The member in whose name the alarm is raised; 0 in a store that stands alone.
    pub member: u64,
}

impl Quota {
    /// Proposes a command by `propose`, if the replica has room for it; else raises the alarm by it.
    ///
    /// # Errors
    /// [`Error::NoSpace`] at the quota; the proposal's.
    pub async fn propose<F>(
        self,
        replica: &Replica,
        command: Command,
        propose: impl Fn(Command) -> F,
    ) -> Result<Outcome, Error>
    where
        F: Future<Output = Result<Outcome, Error>>,
    {
        let taken = if self.bytes == 0 { 0 } else { takes_space(&command) };
        if taken == 0 || replica.size_in_use().saturating_add(taken) < self.bytes {
            return propose(command).await;
        }
        let alarm = Alarm { member: self.member, kind: AlarmKind::NoSpace };
        if !replica.alarms().contains(&alarm) {
            tracing::warn!(quota = self.bytes, "the quota is reached: puts are refused from now on");
            propose(Command::Alarm { alarm, active: true }).await?;
        }
        Err(Error::NoSpace(format!("the quota of {} bytes is reached", self.bytes)))
    }
}

#[cfg(test)]
mod tests {
    use crate::{AlarmKind, Error, KeyRange, MemoryOptions, MemoryStore, Quota, Store};

    #[tokio::test]
    async fn at_the_quota_puts_are_refused_until_space_is_made_and_the_alarm_ended() {
        let quota = Quota { bytes: 20_000, member: 7 };
        let store = MemoryStore::with_options(MemoryOptions { quota, ..MemoryOptions::default() });
        let put = || store.put("a".into(), vec![0; 1000].into());
        let refused = loop {
            match put().await {
                Ok(revision) => assert!(revision < 30, "there is no quota"),
                Err(error) => break error,
            }
        };
        assert!(matches!(refused, Error::NoSpace(_)), "{refused}");
        let status = store.status().await.unwrap();
        assert!((15_000..20_000).contains(&status.size_in_use), "{status:?}");
        let alarms = store.alarms().await.unwrap();
        assert!(matches!(&alarms[..], [alarm] if alarm.kind == AlarmKind::NoSpace && alarm.member == 7), "{alarms:?}");
        assert!(matches!(store.lease_grant(1, 10).await, Err(Error::NoSpace(_))));
        assert!(store.get("a".into()).await.unwrap().is_some(), "reads go on");
        // Ended too early, it comes again.
        store.deactivate_alarm(alarms[0]).await.unwrap();
        assert!(matches!(put().await, Err(Error::NoSpace(_))));
        assert_eq!(store.alarms().await.unwrap(), alarms);
        store.delete(KeyRange::key("a")).await.unwrap();
        store.compact(store.status().await.unwrap().revision).await.unwrap();
        assert!(store.status().await.unwrap().size_in_use < 100, "all that is left is that it was deleted");
        assert!(matches!(put().await, Err(Error::NoSpace(_))), "the alarm is active still");
        store.deactivate_alarm(alarms[0]).await.unwrap();
        put().await.unwrap();
    }
}
