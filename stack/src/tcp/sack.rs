//! helper sender: the scoreboard.
