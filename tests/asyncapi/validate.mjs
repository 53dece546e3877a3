// What AsyncAPI's own parser has to say of the document on standard input, as JSON: nothing, if all is well.
import { text } from "node:stream/consumers";
import { Parser } from "@asyncapi/parser";

const { document, diagnostics } = await new Parser().parse(await text(process.stdin));
const said = diagnostics.map(({ code, path, message }) => ({ code, path: path.join("."), message }));
process.stdout.write(JSON.stringify({ version: document?.version() ?? null, said }));
