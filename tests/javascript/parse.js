// Parses the AsyncAPI document named on the command line; prints what is wrong with it, and how many messages it has.
const { Parser, fromFile } = require('@asyncapi/parser')

fromFile(new Parser(), process.argv[2])
  .parse()
  .then(({ document, diagnostics }) => {
    const wrong = diagnostics.filter((each) => each.severity < 2) // errors and warnings
    for (const each of wrong) console.log(each.path.join('/'), each.message)
    console.log(document === undefined ? 'no document' : `${document.allMessages().length} messages`)
    process.exit(wrong.length || document === undefined ? 1 : 0)
  })
