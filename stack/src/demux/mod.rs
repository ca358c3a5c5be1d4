//! Which socket a packet belongs to, and which shard.
