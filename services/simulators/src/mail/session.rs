//! One SMTP conversation.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::Sink;
use super::command::{Command, Reply};
use super::content::Content;
use super::mailbox::{Envelope, Mail};
use crate::control::Verdict;

/// RFC 5321 asks for 512 bytes; addresses in UTF-8 and parameters may need more.
const LONGEST_COMMAND: u64 = 2_048;

pub(super) struct Session<'a> {
    sink: &'a Sink,
    reader: BufReader<OwnedReadHalf>,
    writer: BufWriter<OwnedWriteHalf>,
    greeted: bool,
    transaction: Option<Transaction>,
}

/// A mail in the making.
struct Transaction {
    envelope: Envelope,
    lose_answer: bool,
}

/// Why a conversation ended.
enum End {
    /// The client said goodbye or went away, or we drop it on purpose.
    Gone,
    /// We end it, and say so.
    Closing(&'static str),
    Broken(io::Error),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

impl<'a> Session<'a> {
    pub(super) fn new(stream: TcpStream, sink: &'a Sink) -> Self {
        // Each reply is waited for; Nagle's algorithm would only add delay.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "could not disable Nagle's algorithm");
        }
        let (reader, writer) = stream.into_split();
        let (reader, writer) = (BufReader::new(reader), BufWriter::new(writer));
        Self { sink, reader, writer, greeted: false, transaction: None }
    }

    pub(super) async fn run(mut self) -> io::Result<()> {
        match self.converse().await {
            End::Gone => Ok(()),
            End::Broken(error) => Err(error),
            End::Closing(text) => {
                self.writer.write_all(format!("421 {text}\r\n").as_bytes()).await?;
                self.writer.flush().await
            }
        }
    }

    async fn converse(&mut self) -> End {
        if let Err(end) = self.reply(Reply::new(220, "millrace mail sink ESMTP")).await {
            return end;
        }
        loop {
            if let Err(end) = self.turn().await {
                return end;
            }
        }
    }

    /// Reads one command and answers it.
    async fn turn(&mut self) -> Result<(), End> {
        let reply = match self.read_command().await? {
            Err(refusal) => refusal,
            Ok(Command::Quit) => {
                self.reply(Reply::new(221, "Goodbye")).await?;
                return Err(End::Gone);
            }
            Ok(Command::Hello { extended: true, name }) => {
                self.greet();
                let size = self.sink.settings.max_mail_bytes;
                let offers = format!("250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-SIZE {size}\r\n");
                let lines = format!("250-Hello {name}\r\n{offers}");
                self.writer.write_all(lines.as_bytes()).await?;
                Reply::new(250, "HELP")
            }
            Ok(Command::Hello { extended: false, name }) => {
                self.greet();
                Reply::new(250, format!("Hello {name}"))
            }
            Ok(Command::Mail { from, size }) => self.mail(from, size).await?,
            Ok(Command::Rcpt { to }) => self.rcpt(to),
            Ok(Command::Data) => self.data().await?,
            Ok(Command::Reset) => {
                self.transaction = None;
                Reply::new(250, "Forgotten")
            }
            Ok(Command::Noop) => Reply::new(250, "Still here"),
            Ok(Command::Verify) => Reply::new(252, "Cannot tell; send it and see"),
            Ok(Command::Help) => Reply::new(214, "EHLO HELO MAIL RCPT DATA RSET NOOP VRFY QUIT"),
        };
        self.reply(reply).await
    }

    fn greet(&mut self) {
        self.greeted = true;
        self.transaction = None;
    }

    async fn mail(&mut self, from: String, size: Option<usize>) -> Result<Reply, End> {
        let limit = self.sink.settings.max_mail_bytes;
        match (&self.transaction, size) {
            _ if !self.greeted => return Ok(Reply::new(503, "Say EHLO first")),
            (Some(_), _) => return Ok(Reply::new(503, "Another mail is in the making; RSET drops it")),
            (None, Some(size)) if size > limit => return Ok(too_large(limit)),
            (None, _) => {}
        }
        let lose_answer = match self.sink.switch.judge() {
            Verdict::Proceed => false,
            Verdict::ProceedThenHangUp => true,
            Verdict::Refuse(status) => {
                return Ok(Reply::new(status.unwrap_or(451), "The mail sink refuses mails at the moment"));
            }
            Verdict::HangUp => return Err(End::Gone),
            Verdict::Hold => {
                self.sink.switch.hold().await;
                return Err(End::Gone);
            }
        };
        self.transaction = Some(Transaction { envelope: Envelope { from, to: Vec::new() }, lose_answer });
        Ok(Reply::new(250, "Sender taken"))
    }

    fn rcpt(&mut self, to: String) -> Reply {
        let limit = self.sink.settings.max_recipients;
        let Some(Transaction { envelope, .. }) = &mut self.transaction else {
            return Reply::new(503, "Say MAIL first");
        };
        if envelope.to.len() >= limit {
            return Reply::new(452, format!("No more than {limit} recipients at a time"));
        }
        if to.split_once('@').is_some_and(|(local, _)| local.eq_ignore_ascii_case("bounce")) {
            return Reply::new(550, "No such mailbox");
        }
        envelope.to.push(to);
        Reply::new(250, "Recipient taken")
    }

    async fn data(&mut self) -> Result<Reply, End> {
        let Some(Transaction { envelope, lose_answer }) = self.transaction.take_if(|mail| !mail.envelope.to.is_empty())
        else {
            return Ok(Reply::new(503, "Say MAIL and RCPT first"));
        };
        self.reply(Reply::new(354, "End with a dot on a line of its own")).await?;
        let limit = self.sink.settings.max_mail_bytes;
        let Some(bytes) = self.read_content(Content::new(limit)).await? else {
            return Ok(too_large(limit));
        };
        let mail = Mail::read(envelope, &bytes);
        let number = self.sink.with_mailbox(|mailbox| mailbox.receive(mail));
        match lose_answer {
            true => Err(End::Gone),
            false => Ok(Reply::new(250, format!("Kept as mail {number}"))),
        }
    }

    /// Reads a line; one that is too long or no text is refused without ending the conversation.
    async fn read_command(&mut self) -> Result<Result<Command, Reply>, End> {
        let mut line = Vec::new();
        let sink = self.sink;
        let mut limited = (&mut self.reader).take(LONGEST_COMMAND);
        if wait(sink, limited.read_until(b'\n', &mut line)).await? == 0 {
            return Err(End::Gone);
        }
        if line.pop() != Some(b'\n') {
            self.skip_line().await?;
            return Ok(Err(Reply::new(500, "Line too long")));
        }
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        Ok(match std::str::from_utf8(line) {
            Ok(line) => Command::parse(line),
            Err(_) => Err(Reply::new(500, "Commands are text in UTF-8")),
        })
    }

    /// Reads on to the end of a line that is too long to keep.
    async fn skip_line(&mut self) -> Result<(), End> {
        loop {
            let read = wait(self.sink, self.reader.fill_buf()).await?;
            let Some(available) = Some(read.len()).filter(|length| *length > 0) else { return Err(End::Gone) };
            let end = read.iter().position(|byte| *byte == b'\n');
            self.reader.consume(end.map_or(available, |end| end + 1));
            if end.is_some() {
                return Ok(());
            }
        }
    }

    async fn read_content(&mut self, mut content: Content) -> Result<Option<Vec<u8>>, End> {
        while !content.is_complete() {
            let read = wait(self.sink, self.reader.fill_buf()).await?;
            if read.is_empty() {
                return Err(End::Gone);
            }
            let used = content.take(read);
            self.reader.consume(used);
        }
        Ok(content.into_bytes())
    }

    /// Writes a reply, and sends it unless the next command of a pipelining client is here already.
    async fn reply(&mut self, Reply(code, text): Reply) -> Result<(), End> {
        self.writer.write_all(format!("{code} {text}\r\n").as_bytes()).await?;
        if self.reader.buffer().is_empty() {
            self.writer.flush().await?;
        }
        Ok(())
    }
}

/// Waits for the client, but not for ever.
async fn wait<T>(sink: &Sink, read: impl Future<Output = io::Result<T>>) -> Result<T, End> {
    let patience = Duration::from_millis(sink.settings.idle_timeout_ms);
    tokio::select! {
        () = sink.shutdown.cancelled() => Err(End::Closing("The mail sink is shutting down")),
        read = tokio::time::timeout(patience, read) => match read {
            Ok(read) => Ok(read?),
            Err(_) => Err(End::Closing("You have been silent for too long")),
        },
    }
}

fn too_large(limit: usize) -> Reply {
    Reply::new(552, format!("The mail is larger than {limit} bytes"))
}
