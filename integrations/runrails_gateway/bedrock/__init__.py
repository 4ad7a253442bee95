"""
Models on Amazon Bedrock, asked for in OpenAI's or Anthropic's words: Converse is spoken to the other side.

An upstream is named with its region, in code or in the file of ``RUNRAILS_UPSTREAMS``; credentials alone make none:

    [[upstream]]
    name = "bedrock"
    dialect = "bedrock"
    region = "eu-west-1"

Its address follows from the region, its prices are that region's, and requests are signed with the AWS credentials of
the process (environment, profile, role), which are renewed before they expire; or ``key`` is an API key of Bedrock.
Without ``models`` it serves what begins as Bedrock's names do, `runrails_gateway.config.BEDROCK_MODELS`: a maker
(``anthropic.``, ``amazon.``, ``meta.``, ``mistral.`` …) or the geography of an inference profile (``us.``, ``eu.``,
``apac.``, ``global.`` …). ARNs are named one by one, or as ``arn:aws:bedrock:eu-west-1:*``; one that does not say which
model is behind it needs a price or an alias in ``runrails.toml``.

Served are ``/v1/chat/completions`` and ``/v1/messages``, streamed or not, with tools, pictures, thoughts and cache
points. What Converse has not is refused by name before anything is held: responses, embeddings, counting tokens,
several answers, seeds, response formats, tools of the provider's own, and forbidding tools. Headers of betas go no
further. Users' keys of their own do not go there: a key policy that requires one refuses the call.
"""
