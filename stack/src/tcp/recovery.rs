//! helper sender: recovery with PRR; undo.
