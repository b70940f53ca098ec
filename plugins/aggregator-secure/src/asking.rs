//! The server's queries, and how it handles the answers.

use plugin_api::{Context, Error, Message, Query, Reply, Result};

use crate::aggregator::{At, Secure};
use crate::identities::{AGREED, SIGNATURE};
use crate::letters::{self, Mark, Question};
use crate::limits::{self, Told};
use crate::round::of;
use crate::secrets::{Public, SEALED};
use crate::shamir::{self, Secret};

impl Secure {
    pub(crate) fn ask_keys(&self) -> Result<(Vec<Query>, At)> {
        let question = Question::Keys.message()?;
        Ok((self.round.cohort.iter().map(|name| query(name, question.clone())).collect(), At::Keys))
    }

    /// Asks for shares next; if clients sign, for signatures first.
    pub(crate) fn take_keys(&mut self, answers: &[Reply], ctx: &Context<'_>) -> Result<(Vec<Query>, At)> {
        let member = |reply: &Reply| {
            let rows = rows::<32>(reply, 2)?;
            Ok((reply.client.clone(), [rows[0], rows[1]]))
        };
        self.round.members = answers.iter().map(member).collect::<Result<_>>()?;
        self.round.enough(self.round.members.len(), "sent their keys")?;
        let any = |mark: Mark| answers.iter().any(|answer| mark.is_on(&answer.message));
        let told = Told { reproducible: any(Mark::Reproducible), signed: any(Mark::Signed) };
        self.round.signed = told.signed;
        limits::note(&self.round, told, ctx);
        let names = self.names();
        if told.signed {
            let question = self.of_members(Question::Sign { members: names.clone(), terms: self.round.terms })?;
            return Ok((names.iter().map(|name| query(name, question.clone())).collect(), At::Sign));
        }
        self.ask_shares(&names, None)
    }

    /// Asks those who signed for shares.
    pub(crate) fn take_signatures(&mut self, answers: &[Reply]) -> Result<(Vec<Query>, At)> {
        self.round.enough(answers.len(), "signed their keys")?;
        let mut signatures = vec![[0; SIGNATURE]; self.round.members.len()];
        for answer in answers {
            signatures[self.round.place(&answer.client)?] = rows::<SIGNATURE>(answer, 1)?[0];
        }
        let signers: Vec<String> = answers.iter().map(|answer| answer.client.clone()).collect();
        self.ask_shares(&signers, Some(&signatures))
    }

    fn ask_shares(&self, asked: &[String], signatures: Option<&[[u8; SIGNATURE]]>) -> Result<(Vec<Query>, At)> {
        let mut question = self.of_members(Question::Shares { members: self.names(), terms: self.round.terms })?;
        if let Some(signatures) = signatures {
            question = letters::with_signatures(question, signatures)?;
        }
        Ok((asked.iter().map(|name| query(name, question.clone())).collect(), At::Shares))
    }

    fn names(&self) -> Vec<String> {
        self.round.members.iter().map(|(name, _)| name.clone()).collect()
    }

    /// A query that carries the members' keys.
    fn of_members(&self, question: Question) -> Result<Message> {
        let keys: Vec<[u8; 64]> = self.round.members.iter().map(|(_, [a, b])| pair(a, b)).collect();
        letters::with_rows(question.message()?, &keys)
    }

    pub(crate) fn take_shares(&mut self, answers: &[Reply]) -> Result<(Vec<Query>, At)> {
        let round = &mut self.round;
        round.senders = answers.iter().map(|reply| round.place(&reply.client)).collect::<Result<_>>()?;
        round.enough(round.senders.len(), "dealt shares")?;
        let dealt =
            answers.iter().map(|reply| rows::<SEALED>(reply, round.members.len())).collect::<Result<Vec<_>>>()?;
        let question = Question::Keep { senders: round.senders.clone() }.message()?;
        let keep = |&place: &usize| {
            let rows: Vec<[u8; SEALED]> = dealt.iter().map(|rows| rows[place]).collect();
            Ok(query(&round.members[place].0, letters::with_rows(question.clone(), &rows)?))
        };
        Ok((round.senders.iter().map(keep).collect::<Result<_>>()?, At::Keep))
    }

    /// After the updates: asks for shares; if clients sign, for signatures first.
    pub(crate) fn close(&self, ctx: &Context<'_>) -> Result<(Vec<Query>, At)> {
        let round = &self.round;
        round.enough(round.arrived.len(), "sent an update")?;
        let dropped = round.cohort.len() - round.arrived.len();
        ctx.scalar("Secure/dropped", ctx.round().unwrap_or_default(), dropped as f64);
        if round.trained == 0 {
            // There is nothing to learn from the sum, so it stays masked.
            return Ok((Vec::new(), At::Unmasked));
        }
        round.enough_trained()?;
        let arrived = round.arrived.clone();
        if round.signed {
            Ok((self.ask_arrived(&Question::Agree { arrived }.message()?), At::Agree))
        } else {
            Ok((self.ask_arrived(&Question::Unmask { arrived }.message()?), At::Unmask))
        }
    }

    pub(crate) fn take_agreements(&self, answers: &[Reply]) -> Result<(Vec<Query>, At)> {
        let round = &self.round;
        round.enough(answers.len(), "signed whose updates arrived")?;
        let agreed = |place: &usize| {
            let answer = answers.iter().find(|answer| answer.client == round.members[*place].0);
            answer.map_or(Ok([0; AGREED]), |answer| Ok(rows::<AGREED>(answer, 1)?[0]))
        };
        let agreed = round.arrived.iter().map(agreed).collect::<Result<Vec<_>>>()?;
        let question = Question::Unmask { arrived: round.arrived.clone() }.message()?;
        let mut questions = self.ask_arrived(&letters::with_signatures(question, &agreed)?);
        questions.retain(|query| answers.iter().any(|answer| answer.client == query.client));
        Ok((questions, At::Unmask))
    }

    fn ask_arrived(&self, question: &Message) -> Vec<Query> {
        let round = &self.round;
        round.arrived.iter().map(|&place| query(&round.members[place].0, question.clone())).collect()
    }

    pub(crate) fn unmask(&mut self, answers: &[Reply], ctx: &Context<'_>) -> Result<(Vec<Query>, At)> {
        let round = &mut self.round;
        round.enough(answers.len(), "sent what is needed to unmask")?;
        let given = |reply: &Reply| {
            let rows = rows::<32>(reply, round.senders.len())?;
            let secrets: Vec<Secret> = rows.iter().map(|row| Secret::new(*row)).collect();
            Ok((u8::try_from(round.place(&reply.client)? + 1).unwrap_or(u8::MAX), secrets))
        };
        let given = answers.iter().map(given).collect::<Result<Vec<_>>>()?;
        let mut masks = Vec::new();
        for (row, &sender) in round.senders.iter().enumerate() {
            let shares: Vec<(u8, &Secret)> = given.iter().map(|(client, shares)| (*client, &shares[row])).collect();
            let secret = shamir::join(&shares, round.terms.threshold).map_err(|e| of(&round.members[sender].0, e))?;
            masks.extend(round.masks_of(sender, &secret)?);
        }
        // Applies one mask at a time, in blocks of one parameter: the model is not copied.
        for (_, _, sum) in &mut round.sum {
            ctx.check()?;
            masks.iter_mut().for_each(|(stream, sign)| stream.mask(sum, *sign));
        }
        let largest = round.largest_sum()?;
        let beyond = |sum: &[u32]| sum.iter().any(|number| number.cast_signed().unsigned_abs() > largest);
        match round.sum.iter().find(|(_, _, sum)| beyond(sum)) {
            Some((name, _, _)) => Err(Error::tensor(name, "the masks do not cancel: some client sent a wrong message")),
            None => Ok((Vec::new(), At::Unmasked)),
        }
    }
}

fn query(client: &str, message: Message) -> Query {
    Query { client: client.to_owned(), message }
}

/// Reads `count` rows of bytes from an answer.
fn rows<const N: usize>(reply: &Reply, count: usize) -> Result<&[[u8; N]]> {
    letters::rows(&reply.message, count).map_err(|e| of(&reply.client, e))
}

fn pair(a: &Public, b: &Public) -> [u8; 64] {
    let mut both = [0; 64];
    both[..32].copy_from_slice(a);
    both[32..].copy_from_slice(b);
    both
}
