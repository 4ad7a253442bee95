// Clients of JavaScript, unchanged but for their base URL and key. Prints a line of JSON for each way in: what a whole
// and a streamed answer said, what it did without money, and what it did with a tool that never answers.
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import Anthropic from "@anthropic-ai/sdk";
import { HumanMessage, ToolMessage } from "@langchain/core/messages";
import { ChatOpenAI } from "@langchain/openai";
import { generateText, jsonSchema, stepCountIs, streamText, tool } from "ai";
import OpenAI from "openai";

const { GATEWAY: gateway, KEY: rich, POOR_KEY: poor, MODEL: model } = process.env;
const STEPS_MAX = 30;
const hi = [{ role: "user", content: "hi" }];
const parameters = { type: "object", properties: { text: { type: "string" } } };
const counted = { requests: 0, executed: 0 };
const counting = (...request) => {
  counted.requests += 1;
  return fetch(...request);
};
const classify = () => {
  counted.executed += 1;
  return "Error: no result";
};

/** The answer of a streamed call, from pieces of text. */
async function joined(pieces, text = (piece) => piece) {
  let all = "";
  for await (const piece of pieces) all += text(piece) ?? "";
  return all;
}

function openaiChat(apiKey) {
  const client = new OpenAI({ apiKey, baseURL: `${gateway}/v1`, fetch: counting });
  const asked = { model, messages: hi, max_tokens: 2000 };
  const called = { name: "classify", description: "classifies", parse: JSON.parse, parameters, function: classify };
  return {
    whole: async () => (await client.chat.completions.create(asked)).choices[0].message.content,
    streamed: async () =>
      joined(await client.chat.completions.create({ ...asked, stream: true }), (chunk) => chunk.choices[0].delta.content),
    agent: () =>
      client.chat.completions
        .runTools({ ...asked, tools: [{ type: "function", function: called }] }, { maxChatCompletions: STEPS_MAX })
        .finalContent(),
  };
}

function openaiResponses(apiKey) {
  const client = new OpenAI({ apiKey, baseURL: `${gateway}/v1`, fetch: counting });
  const asked = { model, input: "hi", max_output_tokens: 2000 };
  const tools = [{ type: "function", name: "classify", parameters, strict: false }];
  return {
    whole: async () => (await client.responses.create(asked)).output_text,
    streamed: async () => (await client.responses.stream(asked).finalResponse()).output_text,
    agent: async () => {
      let said = { input: "hi" };
      for (let step = 0; step < STEPS_MAX; step += 1) {
        const answer = await client.responses.create({ ...asked, ...said, tools });
        const outputs = answer.output
          .filter((item) => item.type === "function_call")
          .map((item) => ({ type: "function_call_output", call_id: item.call_id, output: classify() }));
        said = { input: outputs, previous_response_id: answer.id };
      }
    },
  };
}

function anthropic(apiKey) {
  const client = new Anthropic({ apiKey, baseURL: gateway, fetch: counting });
  const asked = { model, max_tokens: 2000, messages: hi };
  const tools = [{ name: "classify", input_schema: parameters }];
  return {
    whole: async () => (await client.messages.create(asked)).content[0].text,
    streamed: async () => (await client.messages.stream(asked).finalMessage()).content[0].text,
    agent: async () => {
      const messages = [...hi];
      for (let step = 0; step < STEPS_MAX; step += 1) {
        const { content } = await client.messages.create({ ...asked, messages, tools });
        const results = content
          .filter((block) => block.type === "tool_use")
          .map((block) => ({ type: "tool_result", tool_use_id: block.id, content: classify(), is_error: true }));
        messages.push({ role: "assistant", content }, { role: "user", content: results });
      }
    },
  };
}

function vercel(language) {
  const asked = { model: language, prompt: "hi", maxOutputTokens: 2000, onError: () => {} };
  const tools = { classify: tool({ inputSchema: jsonSchema(parameters), execute: async () => classify() }) };
  return {
    whole: async () => (await generateText(asked)).text,
    streamed: () => joined(streamText(asked).textStream),
    agent: () => generateText({ ...asked, tools, stopWhen: stepCountIs(STEPS_MAX) }),
  };
}

function langchain(apiKey) {
  const client = new ChatOpenAI({
    model, apiKey, maxTokens: 2000, configuration: { baseURL: `${gateway}/v1`, fetch: counting },
  });
  const bound = client.bindTools([{ type: "function", function: { name: "classify", parameters } }]);
  return {
    whole: async () => (await client.invoke("hi")).content,
    streamed: async () => joined(await client.stream("hi"), (chunk) => chunk.content),
    agent: async () => {
      const messages = [new HumanMessage("hi")];
      for (let step = 0; step < STEPS_MAX; step += 1) {
        const answer = await bound.invoke(messages);
        const results = answer.tool_calls.map(({ id }) => new ToolMessage({ tool_call_id: id, content: classify() }));
        messages.push(answer, ...results);
      }
    },
  };
}

const openaiOf = (apiKey) => createOpenAI({ apiKey, baseURL: `${gateway}/v1`, fetch: counting });
const anthropicOf = (apiKey) => createAnthropic({ apiKey, baseURL: `${gateway}/v1`, fetch: counting });
const WAYS = {
  "openai chat": openaiChat,
  "openai responses": openaiResponses,
  anthropic,
  "ai chat": (apiKey) => vercel(openaiOf(apiKey).chat(model)),
  "ai responses": (apiKey) => vercel(openaiOf(apiKey)(model)),
  "ai messages": (apiKey) => vercel(anthropicOf(apiKey)(model)),
  langchain,
};

/** What becomes of a call: what it said, how many requests and tool calls that took, the status that ended it. */
async function outcome(call) {
  Object.assign(counted, { requests: 0, executed: 0 });
  let said = null;
  let error = null;
  try {
    said = await call();
  } catch (raised) {
    error = raised;
  }
  const status = error?.status ?? error?.statusCode ?? null;
  return { said: typeof said === "string" ? said : null, ...counted, status, error: error && `${error.message}`.slice(0, 300) };
}

for (const [way, client] of Object.entries(WAYS)) {
  const paying = client(rich);
  const found = {
    way,
    whole: await outcome(paying.whole),
    streamed: await outcome(paying.streamed),
    broke: await outcome(client(poor).whole),
    agent: await outcome(paying.agent),
  };
  console.log(JSON.stringify(found));
}
