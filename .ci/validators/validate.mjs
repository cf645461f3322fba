// Holds the published documents against parsers that were not written here. Prints what is wrong; exit code 1 if anything is.
import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import parsers from '@asyncapi/parser'
import { Ajv } from 'ajv'
import { Ajv2020 } from 'ajv/dist/2020.js'
import addFormats from 'ajv-formats'

const root = process.argv[2]
const read = path => JSON.parse(readFileSync(join(root, path), 'utf8'))
let wrong = 0
const complain = text => { wrong += 1; console.error(text) }

const { document, diagnostics } = await new parsers.Parser().parse(readFileSync(join(root, 'docs/asyncapi.json'), 'utf8'))
// Errors are 0 and warnings 1; what is only a hint is 2 and 3.
for (const found of diagnostics.filter(found => found.severity <= 1)) {
  complain(`docs/asyncapi.json: ${found.code}: ${found.message} at ${found.path.join('/')}`)
}
if (!document) complain('docs/asyncapi.json: not a document')
else console.log(`docs/asyncapi.json: AsyncAPI ${document.version()}, ${document.channels().length} channels, ` +
  `${document.operations().length} operations, ${document.messages().length} messages`)

// Numbers of bits and the like are formats of OpenAPI, which JSON Schema lets everybody define.
const withFormats = ajv => {
  addFormats(ajv)
  for (const bits of ['int32', 'int64', 'uint32', 'uint64']) ajv.addFormat(bits, true)
  return ajv
}

// The parser leaves the examples alone. Schemas of AsyncAPI are those of draft 7; the parser marks them with extensions.
const draft7 = withFormats(new Ajv({ strict: false, allErrors: true }))
let told = 0
for (const message of document?.messages() ?? []) {
  for (const example of message.examples()) {
    for (const [part, schema, value] of [
      ['payload', message.payload(), example.payload()], ['headers', message.headers(), example.headers()],
    ]) {
      if (!schema || value === undefined) continue
      told += 1
      const valid = draft7.compile(schema.json())
      if (!valid(value)) complain(`docs/asyncapi.json: ${part} of an example of ${message.id()}: ${draft7.errorsText(valid.errors)}`)
    }
  }
}
console.log(`docs/asyncapi.json: ${told} examples of payloads and headers`)

const ajv = withFormats(new Ajv2020({ strict: true, strictTypes: false, strictRequired: false, allErrors: true }))
const files = readdirSync(join(root, 'schemas')).filter(name => name.endsWith('.json'))
let examples = 0
for (const name of files) {
  const schema = read(`schemas/${name}`)
  try {
    const valid = ajv.compile(schema)
    for (const example of schema.examples) {
      examples += 1
      if (!valid(example)) complain(`schemas/${name}: ${ajv.errorsText(valid.errors)}: ${JSON.stringify(example)}`)
    }
  } catch (error) {
    complain(`schemas/${name}: ${error.message}`)
  }
}
if (files.length === 0) complain('schemas/: no files')
console.log(`schemas/: ${files.length} JSON Schemas, ${examples} examples`)
process.exitCode = wrong === 0 ? 0 : 1
