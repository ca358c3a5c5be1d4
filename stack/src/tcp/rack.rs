//! helper sender: RACK and TLP.
