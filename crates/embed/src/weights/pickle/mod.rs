//! Python pickles, read as plain data.
//!
//! Nothing in a pickle is executed: a class or function is a name, and a call is kept as that name with its
//! arguments. Values lie in one list and refer to each other by number, so that neither reading nor dropping them
//! recurses, however deep they are nested.

mod machine;

use machine::Machine;

/// The number of a value in its [`Pickle`].
pub(in crate::weights) type Ref = u32;

/// A Python object.
#[derive(Debug, PartialEq)]
pub(in crate::weights) enum Value {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    /// Bytes, or an integer beyond 128 bits; nothing of a checkpoint that is read here is among them.
    Opaque,
    Tuple(Vec<Ref>),
    List(Vec<Ref>),
    Set,
    Dict(Vec<(Ref, Ref)>),
    /// A class or function by its name.
    Global {
        module: String,
        name: String,
    },
    /// What a call of a class or function would give.
    Call(Box<Call>),
    /// What the file keeps outside the pickle, by its key.
    Persistent(Ref),
}

/// A call that is not executed.
#[derive(Debug, PartialEq)]
pub(in crate::weights) struct Call {
    /// The class or function.
    pub(in crate::weights) callee: Ref,
    /// Its arguments, normally a tuple.
    pub(in crate::weights) args: Ref,
    /// The attributes the object was given afterwards, normally a dictionary.
    pub(in crate::weights) state: Option<Ref>,
}

/// One pickle.
#[derive(Debug)]
pub(in crate::weights) struct Pickle {
    values: Vec<Value>,
    /// What was pickled.
    pub(in crate::weights) root: Ref,
    /// Bytes it takes.
    pub(in crate::weights) length: usize,
}

type Result<T> = std::result::Result<T, String>;

impl Pickle {
    /// Reads the pickle that `bytes` begin with.
    pub(in crate::weights) fn read(bytes: &[u8]) -> Result<Self> {
        let mut machine = Machine::new(bytes);
        loop {
            let at = machine.at();
            let root = machine.step().map_err(|reason| format!("{reason} (byte {at} of its pickle)"))?;
            if let Some(root) = root {
                let length = machine.at();
                return Ok(Self { values: machine.into_values(), root, length });
            }
        }
    }

    pub(in crate::weights) fn get(&self, at: Ref) -> &Value {
        &self.values[at as usize]
    }

    pub(in crate::weights) fn text(&self, at: Ref) -> Option<&str> {
        if let Value::Text(text) = self.get(at) { Some(text) } else { None }
    }

    pub(in crate::weights) fn index(&self, at: Ref) -> Option<usize> {
        if let Value::Int(number) = self.get(at) { usize::try_from(*number).ok() } else { None }
    }

    /// Module and name of a class or function.
    pub(in crate::weights) fn global(&self, at: Ref) -> Option<(&str, &str)> {
        match self.get(at) {
            Value::Global { module, name } => Some((module, name)),
            // PyTorch before version 1.6 keeps modules with their source: ("module", class, file, source).
            Value::Persistent(id) => match self.get(*self.sequence(*id)?.get(1)?) {
                Value::Global { module, name } => Some((module, name)),
                _ => None,
            },
            _ => None,
        }
    }

    /// The numbers of all values.
    pub(in crate::weights) fn refs(&self) -> impl Iterator<Item = Ref> {
        0..self.values.len() as Ref
    }

    /// The elements of a tuple or list.
    pub(in crate::weights) fn sequence(&self, at: Ref) -> Option<&[Ref]> {
        if let Value::Tuple(items) | Value::List(items) = self.get(at) { Some(items) } else { None }
    }

    /// The entries of a dictionary.
    pub(in crate::weights) fn dict(&self, at: Ref) -> Option<&[(Ref, Ref)]> {
        if let Value::Dict(entries) = self.get(at) { Some(entries) } else { None }
    }

    /// A call, with the module and name of what is called.
    pub(in crate::weights) fn call(&self, at: Ref) -> Option<(&Call, (&str, &str))> {
        if let Value::Call(call) = self.get(at) { Some((call, self.global(call.callee)?)) } else { None }
    }

    /// The entry of a dictionary under a key that is text; of several the last, as in Python.
    pub(in crate::weights) fn entry(&self, dict: Ref, key: &str) -> Option<Ref> {
        self.dict(dict)?.iter().rev().find(|(name, _)| self.text(*name) == Some(key)).map(|(_, value)| *value)
    }
}

#[cfg(test)]
#[path = "pickle_tests.rs"]
mod tests;
