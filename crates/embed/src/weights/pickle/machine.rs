//! The instructions of pickles, all of protocols 0 to 5 but registries of extensions and buffers out of band.

use std::collections::HashMap;

use super::{Call, Ref, Result, Value};

/// Most values that one pickle may make. A checkpoint of the largest networks makes some ten thousand.
const MAX_VALUES: usize = 1 << 22;

/// The machine that Python's `pickletools` describes.
#[derive(Default)]
pub(super) struct Machine<'a> {
    input: &'a [u8],
    at: usize,
    values: Vec<Value>,
    stack: Vec<Ref>,
    /// Heights of the stack at which marks stand.
    marks: Vec<usize>,
    memo: HashMap<u64, Ref>,
}

impl<'a> Machine<'a> {
    pub(super) fn new(input: &'a [u8]) -> Self {
        Self { input, ..Self::default() }
    }

    /// Bytes read so far.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn into_values(self) -> Vec<Value> {
        self.values
    }

    /// Executes one instruction; the pickled value after the last.
    pub(super) fn step(&mut self) -> Result<Option<Ref>> {
        match self.byte()? {
            b'.' => return self.pop().map(Some),
            b'(' => self.marks.push(self.stack.len()),
            // Protocol and frames say nothing about the values.
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            b'0' => match self.marks.last() {
                Some(&height) if height == self.stack.len() => drop(self.marks.pop()),
                _ => drop(self.pop()?),
            },
            b'1' => drop(self.since_mark()?),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            b'N' => self.push(Value::None)?,
            0x88 => self.push(Value::Bool(true))?,
            0x89 => self.push(Value::Bool(false))?,
            op @ (b'I' | b'J' | b'K' | b'L' | b'M' | 0x8a | 0x8b | b'F' | b'G') => self.number(op)?,
            op @ (b'S' | b'T' | b'U' | b'V' | b'X' | 0x8c | 0x8d) => self.string(op)?,
            op @ (b'B' | b'C' | 0x8e | 0x96) => {
                let width = match op {
                    b'B' => 4,
                    b'C' => 1,
                    _ => 8,
                };
                self.counted(width)?;
                self.push(Value::Opaque)?;
            }
            op @ (b'a' | b'e' | b's' | b'u' | 0x90) => self.add_to(op)?,
            op => self.compose(op)?,
        }
        Ok(None)
    }

    fn number(&mut self, op: u8) -> Result<()> {
        let value = match op {
            b'I' => match self.line()? {
                "00" => Value::Bool(false),
                "01" => Value::Bool(true),
                text => Value::Int(text.parse().map_err(|_| format!("{text:?} is no integer"))?),
            },
            b'L' => {
                let text = self.line()?.trim_end_matches('L');
                text.parse().map_or(Value::Opaque, Value::Int)
            }
            b'F' => {
                let text = self.line()?;
                Value::Float(text.parse().map_err(|_| format!("{text:?} is no number"))?)
            }
            b'G' => Value::Float(f64::from_be_bytes(self.array()?)),
            b'J' => Value::Int(i32::from_le_bytes(self.array()?).into()),
            b'K' => Value::Int(self.byte()?.into()),
            b'M' => Value::Int(u16::from_le_bytes(self.array()?).into()),
            op => {
                let bytes = self.counted(if op == 0x8a { 1 } else { 4 })?;
                let sign = if bytes.last().is_some_and(|last| last & 0x80 != 0) { 0xff } else { 0 };
                let mut wide = [sign; 16];
                match wide.get_mut(..bytes.len()) {
                    Some(low) => {
                        low.copy_from_slice(bytes);
                        Value::Int(i128::from_le_bytes(wide))
                    }
                    None => Value::Opaque,
                }
            }
        };
        self.push(value)
    }

    fn string(&mut self, op: u8) -> Result<()> {
        let text = match op {
            b'S' | b'V' => self.line()?.trim_matches(['\'', '"']).to_owned(),
            op => {
                let width = match op {
                    b'U' | 0x8c => 1,
                    b'T' | b'X' => 4,
                    _ => 8,
                };
                String::from_utf8_lossy(self.counted(width)?).into_owned()
            }
        };
        self.push(Value::Text(text))
    }

    /// Adds values to the list, dictionary or set below them.
    fn add_to(&mut self, op: u8) -> Result<()> {
        let items = match op {
            b'a' => vec![self.pop()?],
            b's' => {
                let value = self.pop()?;
                vec![self.pop()?, value]
            }
            _ => self.since_mark()?,
        };
        let target = self.top()?;
        match (op, &mut self.values[target as usize]) {
            (b'a' | b'e', Value::List(list)) => list.extend(items),
            (b's' | b'u', Value::Dict(dict)) => dict.extend(pairs(&items)?),
            // What objects of other classes hold in this way is of no use here.
            (0x90, Value::Set) | (_, Value::Call(_)) => {}
            _ => return Err("it adds values to what is no list, dictionary or set".to_owned()),
        }
        Ok(())
    }

    /// Instructions that make a value of others, or keep and fetch values.
    fn compose(&mut self, op: u8) -> Result<()> {
        match op {
            b')' => self.push(Value::Tuple(Vec::new())),
            b']' => self.push(Value::List(Vec::new())),
            b'}' => self.push(Value::Dict(Vec::new())),
            0x8f => self.push(Value::Set),
            0x85..=0x87 => {
                let mut items = (0x84..op).map(|_| self.pop()).collect::<Result<Vec<_>>>()?;
                items.reverse();
                self.push(Value::Tuple(items))
            }
            b't' => {
                let items = self.since_mark()?;
                self.push(Value::Tuple(items))
            }
            b'l' => {
                let items = self.since_mark()?;
                self.push(Value::List(items))
            }
            b'd' => {
                let items = pairs(&self.since_mark()?)?;
                self.push(Value::Dict(items))
            }
            0x91 => {
                self.since_mark()?;
                self.push(Value::Set)
            }
            b'c' => {
                let (module, name) = (self.line()?.to_owned(), self.line()?.to_owned());
                self.push(Value::Global { module, name })
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (&self.values[module as usize], &self.values[name as usize]) {
                    (Value::Text(module), Value::Text(name)) => {
                        let (module, name) = (module.clone(), name.clone());
                        self.push(Value::Global { module, name })
                    }
                    _ => Err("it names a class by what is no text".to_owned()),
                }
            }
            b'P' => {
                let key = self.line()?.to_owned();
                self.push(Value::Text(key))?;
                let key = self.pop()?;
                self.push(Value::Persistent(key))
            }
            b'Q' => {
                let key = self.pop()?;
                self.push(Value::Persistent(key))
            }
            b'R' | 0x81 => {
                let args = self.pop()?;
                let callee = self.pop()?;
                self.call(callee, args)
            }
            0x92 => {
                let (_keywords, args) = (self.pop()?, self.pop()?);
                let callee = self.pop()?;
                self.call(callee, args)
            }
            b'i' | b'o' => {
                let mut args = self.since_mark()?;
                let callee = if op == b'i' {
                    let (module, name) = (self.line()?.to_owned(), self.line()?.to_owned());
                    self.push(Value::Global { module, name })?;
                    self.pop()?
                } else if args.is_empty() {
                    return Err("it calls nothing".to_owned());
                } else {
                    args.remove(0)
                };
                self.push(Value::Tuple(args))?;
                let args = self.pop()?;
                self.call(callee, args)
            }
            b'b' => {
                let (state, target) = (self.pop()?, self.top()?);
                // A dictionary's own attributes, such as the versions that `state_dict()` notes, are no entries.
                if let Value::Call(call) = &mut self.values[target as usize] {
                    call.state = Some(state);
                }
                Ok(())
            }
            op => self.remember(op),
        }
    }

    /// Instructions on the memo, by which values are shared.
    fn remember(&mut self, op: u8) -> Result<()> {
        let key = match op {
            b'p' | b'g' => {
                let text = self.line()?;
                text.parse().map_err(|_| format!("{text:?} is no number"))?
            }
            b'q' | b'h' => self.byte()?.into(),
            b'r' | b'j' => u32::from_le_bytes(self.array()?).into(),
            0x94 => self.memo.len() as u64,
            other => return Err(format!("it has the instruction {other:#04x}, which no checkpoint needs")),
        };
        if matches!(op, b'g' | b'h' | b'j') {
            let value = *self.memo.get(&key).ok_or_else(|| format!("value {key} is not there to be used"))?;
            self.stack.push(value);
        } else {
            let top = self.top()?;
            self.memo.insert(key, top);
        }
        Ok(())
    }

    fn call(&mut self, callee: Ref, args: Ref) -> Result<()> {
        let is_dict = matches!(&self.values[callee as usize], Value::Global { module, name }
            if matches!((module.as_str(), name.as_str()),
                ("collections", "OrderedDict" | "defaultdict") | ("builtins" | "__builtin__", "dict")));
        if !is_dict {
            return self.push(Value::Call(Box::new(Call { callee, args, state: None })));
        }
        // Python 2 gives an ordered dictionary its pairs as an argument.
        let list = |at: Ref| match &self.values[at as usize] {
            Value::Tuple(items) | Value::List(items) => Some(items),
            _ => None,
        };
        let given = list(args).and_then(|args| list(*args.first()?));
        let pair = |at: &Ref| if let [key, value] = list(*at)?[..] { Some((key, value)) } else { None };
        let entries = given.into_iter().flatten().filter_map(pair).collect();
        self.push(Value::Dict(entries))
    }

    fn push(&mut self, value: Value) -> Result<()> {
        if self.values.len() == MAX_VALUES {
            return Err(format!("it has more than {MAX_VALUES} values"));
        }
        self.stack.push(self.values.len() as Ref);
        self.values.push(value);
        Ok(())
    }

    /// The value on top, above the last mark.
    fn top(&self) -> Result<Ref> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.last() {
            Some(&top) if self.stack.len() > floor => Ok(top),
            _ => Err("it takes more values than it made".to_owned()),
        }
    }

    fn pop(&mut self) -> Result<Ref> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn since_mark(&mut self) -> Result<Vec<Ref>> {
        let height = self.marks.pop().ok_or("it looks for a mark that is not there")?;
        Ok(self.stack.split_off(height))
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let rest = &self.input[self.at..];
        let taken = rest.get(..count).ok_or("it ends too early")?;
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    /// Bytes whose count stands before them in `width` bytes.
    fn counted(&mut self, width: usize) -> Result<&'a [u8]> {
        let mut count = [0; 8];
        count[..width].copy_from_slice(self.take(width)?);
        self.take(usize::try_from(u64::from_le_bytes(count)).map_err(|_| "it ends too early")?)
    }

    fn line(&mut self) -> Result<&'a str> {
        let rest = &self.input[self.at..];
        let length = rest.iter().position(|byte| *byte == b'\n').ok_or("it ends too early")?;
        self.at += length + 1;
        let line = std::str::from_utf8(&rest[..length]).map_err(|_| "it has a line that is no text")?;
        Ok(line.trim_end_matches('\r'))
    }
}

/// Keys with their values.
fn pairs(items: &[Ref]) -> Result<Vec<(Ref, Ref)>> {
    if !items.len().is_multiple_of(2) {
        return Err("a dictionary has a key without a value".to_owned());
    }
    Ok(items.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}
