//! A reader of the pickles that `torch.save` writes of tensors, numbers, texts, and dicts and lists of them.
//!
//! It knows the opcodes and the names that occur in these, and refuses every other. Nothing is imported or called: what
//! a pickle would call is one of the few functions below, whose arguments are taken as plain data.

use std::collections::HashMap;

use anyhow::{Context, Result, bail, ensure};

use super::Kind;
use super::values::{Global, Id, Stored, Value};

/// What a pickle holds. Values can stand in several places, and a list even in itself.
pub(super) struct Pickle {
    pub(super) values: Vec<Value>,
    pub(super) top: Id,
}

/// Reads a pickle.
///
/// # Errors
/// Returns an error if the pickle is cut off, or holds anything else than a state dict does.
pub(super) fn read(bytes: &[u8]) -> Result<Pickle> {
    let mut machine = Machine { rest: bytes, ..Machine::default() };
    while let Some(top) = machine.step()? {
        if let Next::Ended(top) = top {
            return Ok(Pickle { values: machine.values, top });
        }
    }
    bail!("its pickle is cut off")
}

enum Next {
    Further,
    Ended(Id),
}

/// Python's pickle machine, with the [opcodes](https://github.com/python/cpython/blob/3.13/Lib/pickletools.py) of
/// protocol 2 that these pickles have.
#[derive(Default)]
struct Machine<'a> {
    rest: &'a [u8],
    values: Vec<Value>,
    stack: Vec<Id>,
    /// The heights of the stack at the marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl Machine<'_> {
    /// Does what the next opcode says, or returns `None` at the end of the bytes.
    fn step(&mut self) -> Result<Option<Next>> {
        let Some((&opcode, rest)) = self.rest.split_first() else { return Ok(None) };
        self.rest = rest;
        match opcode {
            0x80 => {
                let [protocol] = self.bytes()?;
                ensure!(
                    protocol == 2,
                    "its pickle has protocol {protocol}, and torch.save writes protocol 2"
                );
            }
            b'.' => return Ok(Some(Next::Ended(self.pop()?))),
            b'(' => self.marks.push(self.stack.len()),
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'K' => {
                let [int] = self.bytes()?;
                self.push(Value::Int(int.into()));
            }
            b'M' => {
                let int = u16::from_le_bytes(self.bytes()?);
                self.push(Value::Int(int.into()));
            }
            b'J' => {
                let int = i32::from_le_bytes(self.bytes()?);
                self.push(Value::Int(int.into()));
            }
            0x8a => {
                let [length] = self.bytes()?;
                let int = self.long(length.into())?;
                self.push(int);
            }
            b'G' => {
                let float = f64::from_be_bytes(self.bytes()?);
                self.push(Value::Float(float));
            }
            b'X' => {
                let length = u32::from_le_bytes(self.bytes()?);
                let text = self.take(length as usize)?;
                let text = std::str::from_utf8(text).context("a text that is not UTF-8")?;
                let text = Value::Text(text.to_owned());
                self.push(text);
            }
            b'}' => self.push(Value::Dict(Vec::new())),
            b']' | b')' => self.push(Value::List(Vec::new())),
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Value::List(items));
            }
            0x85..=0x87 => {
                let count = usize::from(opcode - 0x84);
                let at = self.stack.len().checked_sub(count).filter(|at| *at >= self.mark());
                let items = self.stack.split_off(at.context("a tuple without its items")?);
                self.push(Value::List(items));
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.append(items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set_items(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set_items(&items)?;
            }
            b'q' => {
                let [at] = self.bytes()?;
                self.memo.insert(at.into(), self.last()?);
            }
            b'r' => {
                let at = u32::from_le_bytes(self.bytes()?);
                self.memo.insert(at, self.last()?);
            }
            b'h' => {
                let [at] = self.bytes()?;
                self.get(at.into())?;
            }
            b'j' => {
                let at = u32::from_le_bytes(self.bytes()?);
                self.get(at)?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                let global = Global::named(&module, &name)?;
                self.push(Value::Global(global));
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id)?;
                self.push(storage);
            }
            b'R' => {
                let (arguments, callee) = (self.pop()?, self.pop()?);
                let made = self.call(callee, arguments)?;
                self.push(made);
            }
            // An OrderedDict's attributes: of a module's state dict the versions of its modules.
            b'b' => {
                self.pop()?;
                let target = self.last()?;
                ensure!(
                    matches!(self.values[target], Value::Dict(_)),
                    "attributes of what is no dict"
                );
            }
            _ => bail!(
                "its pickle has the opcode {opcode:#04x}, which torch.save does not write of a state dict"
            ),
        }
        Ok(Some(Next::Further))
    }

    fn take(&mut self, length: usize) -> Result<&[u8]> {
        let (taken, rest) = self.rest.split_at_checked(length).context("its pickle is cut off")?;
        self.rest = rest;
        Ok(taken)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(*self.take(N)?.first_chunk().context("its pickle is cut off")?)
    }

    fn line(&mut self) -> Result<String> {
        let end = self.rest.iter().position(|byte| *byte == b'\n');
        let line = self.take(end.context("its pickle is cut off")? + 1)?;
        Ok(String::from_utf8_lossy(&line[..line.len() - 1]).into_owned())
    }

    /// Reads an integer of so many bytes, of which the last one has the sign. One beyond 64 bits is its bytes in hex.
    fn long(&mut self, length: usize) -> Result<Value> {
        let bytes = self.take(length)?;
        let negative = bytes.last().is_some_and(|last| last & 0x80 != 0);
        if length > size_of::<i64>() {
            let digits = bytes.iter().rev().map(|byte| format!("{byte:02x}"));
            return Ok(Value::Text(digits.collect()));
        }
        let mut whole = [if negative { 0xff } else { 0 }; size_of::<i64>()];
        whole[..length].copy_from_slice(bytes);
        Ok(Value::Int(i64::from_le_bytes(whole)))
    }

    fn push(&mut self, value: Value) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    /// Returns the height of the stack below which nothing can be taken.
    fn mark(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Result<Id> {
        ensure!(self.stack.len() > self.mark(), "its pickle takes what is not there");
        self.stack.pop().context("its pickle takes what is not there")
    }

    fn last(&self) -> Result<Id> {
        let last = self.stack.last().filter(|_| self.stack.len() > self.mark());
        last.copied().context("its pickle takes what is not there")
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>> {
        let mark = self.marks.pop().context("its pickle lacks a mark")?;
        Ok(self.stack.split_off(mark))
    }

    fn get(&mut self, at: u32) -> Result<()> {
        let value = self.memo.get(&at).context("its pickle refers to what is not there")?;
        self.stack.push(*value);
        Ok(())
    }

    fn append(&mut self, items: Vec<Id>) -> Result<()> {
        let list = self.last()?;
        let Value::List(list) = &mut self.values[list] else { bail!("items of what is no list") };
        list.extend(items);
        Ok(())
    }

    fn set_items(&mut self, items: &[Id]) -> Result<()> {
        let dict = self.last()?;
        let Value::Dict(dict) = &mut self.values[dict] else { bail!("items of what is no dict") };
        let (pairs, rest) = items.as_chunks::<2>();
        ensure!(rest.is_empty(), "a key without a value");
        dict.extend(pairs.iter().map(|[key, value]| (*key, *value)));
        Ok(())
    }

    fn list(&self, id: Id) -> Result<&[Id]> {
        match &self.values[id] {
            Value::List(items) => Ok(items),
            other => bail!("a list is expected, and it has {}", other.kind()),
        }
    }

    /// Returns the storage that a persistent id names.
    fn storage(&self, id: Id) -> Result<Value> {
        let &[word, class, key, _location, _numel] = self.list(id)? else {
            bail!("a storage is named otherwise than torch.save names it")
        };
        let values = [word, class, key].map(|id| &self.values[id]);
        let [Value::Text(word), Value::Global(class), Value::Text(key)] = values else {
            bail!("a storage is named otherwise than torch.save names it")
        };
        ensure!(word == "storage", "it refers to {word:?}, and storages alone are read");
        let kind = match class {
            Global::Storage(kind) => Some(*kind),
            Global::UntypedStorage => None,
            _ => bail!("a storage is named otherwise than torch.save names it"),
        };
        Ok(Value::Storage { kind, key: key.clone() })
    }

    /// Returns what a function that a state dict refers to makes of its arguments.
    fn call(&self, callee: Id, arguments: Id) -> Result<Value> {
        let arguments = self.list(arguments)?;
        let Value::Global(callee) = &self.values[callee] else {
            bail!("it calls what is no function")
        };
        match (callee, arguments) {
            (Global::OrderedDict, []) => Ok(Value::Dict(Vec::new())),
            (Global::Tensor, [storage, offset, shape, strides, _grad, _hooks, metadata @ ..]) => {
                self.tensor(*storage, None, [*offset, *shape, *strides], metadata)
            }
            (
                Global::TensorOfDtype,
                [storage, offset, shape, strides, _grad, _hooks, dtype, metadata @ ..],
            ) => {
                let Value::Global(Global::Dtype(kind)) = self.values[*dtype] else {
                    bail!("a tensor without a dtype")
                };
                self.tensor(*storage, Some(kind), [*offset, *shape, *strides], metadata)
            }
            (Global::Parameter, [data, _grad, _hooks]) => match &self.values[*data] {
                Value::Tensor(tensor) => Ok(Value::Tensor(tensor.clone())),
                other => bail!("a parameter is {}", other.kind()),
            },
            (Global::Size | Global::Device, [argument]) => Ok(self.values[*argument].clone()),
            _ => bail!("it calls {callee:?} otherwise than torch.save does"),
        }
    }

    fn tensor(
        &self,
        storage: Id,
        dtype: Option<Kind>,
        [offset, shape, strides]: [Id; 3],
        metadata: &[Id],
    ) -> Result<Value> {
        let Value::Storage { kind, key } = &self.values[storage] else {
            bail!("a tensor without a storage")
        };
        let kind = dtype.or(*kind).context("a tensor without a dtype")?;
        // The bits of lazy conjugation and negation: the storage has other values than the tensor.
        for id in metadata {
            let plain = match &self.values[*id] {
                Value::None => true,
                Value::Dict(bits) => bits.is_empty(),
                _ => false,
            };
            ensure!(
                plain,
                "it has a tensor that is conjugated or negated lazily: save what tensor.resolve_conj() and resolve_neg() return"
            );
        }
        let sizes = |id: Id| {
            let sizes = self.list(id)?.iter().map(|id| self.size(*id));
            sizes.collect::<Result<Vec<_>>>()
        };
        Ok(Value::Tensor(Stored {
            storage: key.clone(),
            kind,
            offset: self.size(offset)?,
            shape: sizes(shape)?,
            strides: sizes(strides)?,
        }))
    }

    fn size(&self, id: Id) -> Result<usize> {
        match self.values[id] {
            Value::Int(size) => usize::try_from(size).with_context(|| format!("a size of {size}")),
            ref other => bail!("a size is {}", other.kind()),
        }
    }
}
