//! Writing programs with labels in place of distances.

use super::program::{Instruction, JMP, Program, ProgramError, RET, Size, X};

/// Where a jump goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Label(usize);

/// A program that is being written. Labels are placed behind the jumps to them, as the kernel demands.
///
/// A conditional jump reaches 255 instructions; one that must reach further is given an unconditional
/// jump to help it, which reaches any distance.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    items: Vec<Item>,
    labels_len: usize,
}

#[derive(Debug, Clone, Copy)]
enum Item {
    Plain(Instruction),
    Goto(Label),
    /// Condition, constant, and where to go; `None` is the next instruction.
    Branch {
        code: u16,
        k: u32,
        yes: Option<Label>,
        no: Option<Label>,
        yes_far: bool,
        no_far: bool,
    },
    Place(Label),
}

impl Assembler {
    pub(crate) fn label(&mut self) -> Label {
        self.labels_len += 1;
        Label(self.labels_len - 1)
    }

    pub(crate) fn place(&mut self, label: Label) {
        self.items.push(Item::Place(label));
    }

    pub(crate) fn goto(&mut self, label: Label) {
        self.items.push(Item::Goto(label));
    }

    /// A = the bytes at this offset.
    pub(crate) fn load(&mut self, size: Size, k: u32) {
        self.plain(0x20 | size.bits(), k);
    }

    /// A = the bytes at X plus this offset.
    pub(crate) fn load_at_x(&mut self, size: Size, k: u32) {
        self.plain(0x40 | size.bits(), k);
    }

    /// A = a constant.
    pub(crate) fn set(&mut self, k: u32) {
        self.plain(0x00, k);
    }

    /// X = a constant.
    pub(crate) fn set_x(&mut self, k: u32) {
        self.plain(0x01, k);
    }

    /// X = the length of the IPv4 header at this offset.
    pub(crate) fn header_length_to_x(&mut self, k: u32) {
        self.plain(0xb1, k);
    }

    /// A = a word of scratch memory.
    pub(crate) fn recall(&mut self, word: u32) {
        self.plain(0x60, word);
    }

    /// X = a word of scratch memory.
    pub(crate) fn recall_x(&mut self, word: u32) {
        self.plain(0x61, word);
    }

    /// Scratch memory = A.
    pub(crate) fn keep(&mut self, word: u32) {
        self.plain(0x02, word);
    }

    /// Scratch memory = X.
    pub(crate) fn keep_x(&mut self, word: u32) {
        self.plain(0x03, word);
    }

    /// X = A.
    pub(crate) fn tax(&mut self) {
        self.plain(0x07, 0);
    }

    pub(crate) fn add(&mut self, k: u32) {
        self.plain(0x04, k);
    }

    pub(crate) fn add_x(&mut self) {
        self.plain(0x04 | X, 0);
    }

    pub(crate) fn mul(&mut self, k: u32) {
        self.plain(0x24, k);
    }

    pub(crate) fn and(&mut self, k: u32) {
        self.plain(0x54, k);
    }

    pub(crate) fn xor(&mut self, k: u32) {
        self.plain(0xa4, k);
    }

    pub(crate) fn xor_x(&mut self) {
        self.plain(0xa4 | X, 0);
    }

    pub(crate) fn shl(&mut self, k: u32) {
        self.plain(0x64, k);
    }

    pub(crate) fn shr(&mut self, k: u32) {
        self.plain(0x74, k);
    }

    pub(crate) fn ret(&mut self, k: u32) {
        self.plain(RET, k);
    }

    pub(crate) fn ret_a(&mut self) {
        self.plain(RET | 0x10, 0);
    }

    /// Goes on at `label` if A is `k`.
    pub(crate) fn if_equal(&mut self, k: u32, label: Label) {
        self.branch(0x10, k, Some(label), None);
    }

    /// Goes on at `label` unless A is `k`.
    pub(crate) fn unless_equal(&mut self, k: u32, label: Label) {
        self.branch(0x10, k, None, Some(label));
    }

    /// Goes on at `label` if A is greater than `k`.
    pub(crate) fn if_greater(&mut self, k: u32, label: Label) {
        self.branch(0x20, k, Some(label), None);
    }

    /// Goes on at `label` if A is at least `k`.
    pub(crate) fn if_at_least(&mut self, k: u32, label: Label) {
        self.branch(0x30, k, Some(label), None);
    }

    /// Goes on at `label` if A is less than `k`.
    pub(crate) fn if_less(&mut self, k: u32, label: Label) {
        self.branch(0x30, k, None, Some(label));
    }

    /// Goes on at `label` if A has one of the bits of `k`.
    pub(crate) fn if_any_bit(&mut self, k: u32, label: Label) {
        self.branch(0x40, k, Some(label), None);
    }

    /// Puts distances in place of labels.
    ///
    /// # Errors
    /// [`ProgramError::TooLong`]; other errors are mistakes of the caller, as a jump back is.
    pub(crate) fn finish(mut self) -> Result<Program, ProgramError> {
        loop {
            let places = self.places();
            // Each pass makes at least one jump far, and none becomes near again, so this ends.
            if !self.stretch(&places) {
                return Program::new(self.encode(&places)?);
            }
        }
    }

    fn plain(&mut self, code: u16, k: u32) {
        self.items.push(Item::Plain(Instruction::new(code, k)));
    }

    fn branch(&mut self, condition: u16, k: u32, yes: Option<Label>, no: Option<Label>) {
        let code = JMP | condition;
        self.items.push(Item::Branch { code, k, yes, no, yes_far: false, no_far: false });
    }

    /// The instruction that each label stands before. A label that is not placed stands at 0, so that
    /// each jump to it is a jump back.
    fn places(&self) -> Vec<usize> {
        let mut places = vec![0; self.labels_len];
        let mut at = 0;
        for item in &self.items {
            if let Item::Place(Label(label)) = item {
                places[*label] = at;
            }
            at += item.len();
        }
        places
    }

    /// Makes jumps far that do not reach. Whether there were any.
    fn stretch(&mut self, places: &[usize]) -> bool {
        let mut changed = false;
        let mut at = 0;
        for item in &mut self.items {
            let len = item.len();
            if let Item::Branch { yes, no, yes_far, no_far, .. } = item {
                for (label, far) in [(yes, yes_far), (no, no_far)] {
                    let reach = at + 1 + NEAR_MAX;
                    if !*far && label.is_some_and(|Label(label)| places[label] > reach) {
                        *far = true;
                        changed = true;
                    }
                }
            }
            at += len;
        }
        changed
    }

    fn encode(&self, places: &[usize]) -> Result<Vec<Instruction>, ProgramError> {
        let mut program = Vec::new();
        let distance = |from: usize, Label(label): Label| {
            places[label].checked_sub(from + 1).ok_or(ProgramError::Jump(from))
        };
        for item in &self.items {
            let at = program.len();
            match *item {
                Item::Plain(instruction) => program.push(instruction),
                Item::Goto(label) => program.push(Instruction::new(JMP, distance(at, label)? as u32)),
                Item::Place(_) => {}
                Item::Branch { code, k, yes, no, yes_far, no_far } => {
                    let helpers = usize::from(yes_far) + usize::from(no_far);
                    let near = |label: Option<Label>| match label {
                        Some(label) => distance(at, label).map(|distance| distance as u8),
                        None => Ok(helpers as u8),
                    };
                    let jt = if yes_far { 0 } else { near(yes)? };
                    let jf = if no_far { u8::from(yes_far) } else { near(no)? };
                    program.push(Instruction { code, jt, jf, k });
                    for label in [yes.filter(|_| yes_far), no.filter(|_| no_far)].into_iter().flatten() {
                        let from = program.len();
                        program.push(Instruction::new(JMP, distance(from, label)? as u32));
                    }
                }
            }
        }
        Ok(program)
    }
}

impl Item {
    fn len(&self) -> usize {
        match self {
            Self::Plain(_) | Self::Goto(_) => 1,
            Self::Branch { yes_far, no_far, .. } => 1 + usize::from(*yes_far) + usize::from(*no_far),
            Self::Place(_) => 0,
        }
    }
}

/// What fits into `jt` and `jf`.
const NEAR_MAX: usize = u8::MAX as usize;
