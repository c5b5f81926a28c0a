// The CSV reader by itself: bytes in; rows and complaints out. (Thousands of files at random: csv.long.ts.)

import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { read } from './csv.ts'

/** The rows of a file without any complaint, as lists of their fields. */
async function fields(content: string | Buffer, delimiter?: string): Promise<string[][]> {
  const { rows, complaints } = await read(content, delimiter)
  assert.deepEqual(complaints, [])
  return rows.map(row => Object.values(row))
}

suite('a row', () => {
  test('has a field for each column; the last line may lack its end', async () => {
    const { rows } = await read('name,age\nAnna,3\nBert,4')
    assert.deepEqual(rows, [{ name: 'Anna', age: '3' }, { name: 'Bert', age: '4' }])
  })

  test('may have its fields in quotes, with delimiters, line breaks, and doubled quotes in them', async () => {
    const rows = await fields('a,b\n"1,5","two\nlines"\n"say ""hi""",""\n')
    assert.deepEqual(rows, [['1,5', 'two\nlines'], ['say "hi"', '']])
  })

  test('ends with LF or CRLF, and the line breaks in its fields stay what they are', async () => {
    assert.deepEqual(await fields('a,b\r\n1,"x\r\ny"\r\n2,z\n'), [['1', 'x\r\ny'], ['2', 'z']])
  })

  test('ends with a carriage return alone in a file that has no other line ends, as old Macs write it, and that is told', async () => {
    for (const content of ['a,b\r1,2\r3,"x\ry"\r', 'a,b\r1,2\r3,"x\ry"', 'a,b\r1,2\r\r3,"x\ry"\n', '\ufeff\ra,b\r1,2\r3,"x\ry"']) {
      const { rows, doubts, complaints } = await read(content)
      assert.deepEqual([rows, complaints], [[{ a: '1', b: '2' }, { a: '3', b: 'x\ny' }], []], JSON.stringify(content))
      assert.deepEqual(doubts, ['carriage returns alone end its lines: they are taken as line feeds, within fields, too'])
    }
    const long = await read(`a,b\r${`${'x'.repeat(999)},1\r`.repeat(3000)}wrong\r2,3`)
    assert.deepEqual([long.rows.length, long.rows.at(-1), long.complaints], [3001, { a: '2', b: '3' }, [[3002, '1 instead of 2 fields']]])
    for (const content of ['a,b\r\n', 'a,b\r\n1,2\r\n', 'a,b\n1,2\r\n']) assert.deepEqual((await read(content)).doubts, [])
    assert.equal((await read('a,b\n1,x\ry\n')).complaints.length, 1, 'among others it ends none')
  })

  test('may have blanks before and after the quotes of a field, if the file has them from the first, and that is told', async () => {
    for (const content of [
      'a, "b"\n1, "x, y"\n', '"a" ,b\n1,  "x, y"  \n', 'a,b\n1,"x, y" \r\n', ' "a","b"\n "1" , "x, y"', 'a,b\n1, "x, y"',
    ]) {
      const { rows, doubts, complaints } = await read(content)
      assert.deepEqual([rows, complaints], [[{ a: '1', b: 'x, y' }], []], content)
      assert.deepEqual(doubts, ['blanks before and after the quotes of a field are taken as no part of it'])
    }
    assert.deepEqual((await read('a;b\n1; "x; ""y"""\n')).rows, [{ a: '1', b: 'x; "y"' }])
    assert.deepEqual(await fields('a,b\n  1 , x \n'), [['  1 ', ' x ']], 'without quotes they are a part of it')
    const late = await read(`a,b\n${'1,2\n'.repeat(300_000)}3, "4"\n`)
    assert.deepEqual(late.complaints, [[300_002, 'a quote inside field 2']], 'what could not be told beforehand is not guessed')
    const wrong = await read('a, "b"\n1, "x" y\n2, "z"\n')
    assert.deepEqual([wrong.rows.length, wrong.complaints], [1, [[2, 'text after the quotes of field 2']]])
  })

  test('is not made of a blank line', async () => {
    assert.deepEqual(await fields('\n\r\na,b\n\n1,2\r\n\r\n3,4\n\n'), [['1', '2'], ['3', '4']])
  })

  test('keeps every character that JSON has to escape', async () => {
    const odd = '\\ \b\f\t\v\0\u2028 é 😀 __proto__'
    assert.deepEqual(await fields(`a,b\n${odd},2\n`), [[odd, '2']])
    assert.equal((await read('__proto__,constructor\n1,2\n')).json, '{"__proto__":"1","constructor":"2"}\n')
  })

  test('may have more fields than there are columns when they are empty, as spreadsheets write them', async () => {
    const rows = await fields('a;b;;\n1;2;;\n3;4;;;;\r\n5;6\n;;;\n')
    assert.deepEqual(rows, [['1', '2'], ['3', '4'], ['5', '6'], ['', '']])
    const { complaints } = await read('a,b\n1,2,,3\n1,2,""\n')
    assert.deepEqual(complaints, [[2, '4 instead of 2 fields'], [3, '3 instead of 2 fields']])
  })
})

suite('a row that is wrong costs itself, and no other', () => {
  const good = { a: 'good', b: '1' }
  for (const [what, wrong, why] of [
    ['too few fields', '1', /^1 instead of 2 fields$/],
    ['too many fields', '1,2,3', /^3 instead of 2 fields$/],
    ['a stray quote', 'x"y,2', /^a quote inside field 1$/],
    ['text after the quotes', '1,"x"y', /^text after the quotes of field 2$/],
    ['a lone CR', '1,x\ry', /^a lone CR in field 2$/],
    ['a forgotten quote', '"open,2', /not closed/],
    ['bytes that are not UTF-8', Buffer.from('é,caf\xe9', 'latin1'), /^invalid UTF-8, perhaps Windows-1252/],
    ['half a letter', Buffer.concat([Buffer.from('é,'), Buffer.from('é').subarray(0, 1)]), /^invalid UTF-8$/],
  ] as const) test(what, async () => {
    const content = Buffer.concat(['a,b\ngood,1\n', wrong, '\ngood,1\n'].map(part => Buffer.from(part)))
    const { rows, complaints } = await read(content)
    assert.deepEqual(rows, [good, good])
    assert.deepEqual(complaints.map(([line]) => line), [3])
    assert.match(complaints[0]![1], why)
  })

  test('a forgotten quote is noticed at the next one, many lines later, and those are right', async () => {
    const { rows, complaints } = await read('a,b\n"open,2\n3,4\n5,"6"\n')
    assert.deepEqual(rows, [{ a: '3', b: '4' }, { a: '5', b: '6' }])
    assert.deepEqual(complaints, [[2, 'text after the quotes of field 1']])
  })

  test('a row may have 1 MiB; what is longer is left out', async () => {
    const most = 'x'.repeat(2 ** 20 - 3)
    const { rows, complaints } = await read(`a,b\n${most},\n${most}xx,\n"${most}\n1",2\ngood,1\n`)
    assert.deepEqual(rows, [{ a: most, b: '' }, good])
    assert.deepEqual(complaints, [
      [3, 'a line of more than 1 MiB'],
      [4, 'a quoted field that is not closed, or not within 1 MiB'],
      [5, 'a quote inside field 1'],
    ])
  })

  test('every complaint has the number of its line, whatever came before', async () => {
    const { complaints } = await read('\ufeff\n\na,b\n"x\ny\r\nz",1\nwrong\n\n"1",2\nwrong\n')
    assert.deepEqual(complaints.map(([line]) => line), [7, 10])
  })
})

suite('the delimiter', () => {
  const columns = async (content: string, delimiter?: string) => (await read(content, delimiter)).columns

  test('is a comma, a semicolon, a tab or a bar', async () => {
    const header = 'a,b;c\td|e'
    for (const delimiter of [',', ';', '\t', '|']) {
      assert.deepEqual(await columns(`${header}\n`, delimiter), header.split(delimiter))
    }
    await assert.rejects(read('a,b\n', '^'), /must be a comma, a semicolon, a tab or a bar/)
  })

  test('is found by the rows, too: a comma in a name, and decimal commas below it, make no columns', async () => {
    const { columns, rows, summary } = await read('Konto;Saldo, EUR\n1200;5,50\n1300;7,00\n')
    assert.deepEqual(columns, ['Konto', 'Saldo, EUR'])
    assert.deepEqual(rows[0], { Konto: '1200', 'Saldo, EUR': '5,50' })
    assert.equal(summary, '2 columns, separated by semicolons')
  })

  test('is found', async () => {
    assert.deepEqual(await columns('Betrag, EUR;Datum, lokal\n5,50;2,75\n'), ['Betrag, EUR', 'Datum, lokal'])
    assert.deepEqual(await columns('a;b,c;d\n1;2;3\n'), ['a', 'b,c', 'd'])
    assert.deepEqual(await columns('id,name;alias\n1,foo\n2,bar;baz\n'), ['id', 'name;alias'])
    assert.deepEqual(await columns('a|b|c\n1|2,5|3\n'), ['a', 'b', 'c'])
    assert.deepEqual(await columns('"a;b","c;d","e"\n1,2,3\n'), ['a;b', 'c;d', 'e'])
    assert.deepEqual(await columns('a\tb, c\n1\t2\n'), ['a', 'b, c'])
    assert.deepEqual(await columns('a,b\n1,2\n3,4;5\n6,7,8\n'), ['a', 'b'])
    assert.deepEqual(await columns('a,b,c;d\n'), ['a', 'b', 'c;d'], 'the most columns when there are no rows')
    assert.deepEqual(await columns('a;b\n"open;1\n2;3,5\n'), ['a', 'b'], 'a forgotten quote in the first row')
  })

  test('that would do as well is mentioned', async () => {
    const { summary, doubts } = await read('id,name;alias\n1,foo;bar\n')
    assert.equal(summary, '2 columns, separated by semicolons')
    assert.deepEqual(doubts, ['commas would fit as well: if the columns are wrong, name the delimiter'])
    assert.deepEqual((await read('id,name;alias\n1,foo;bar\n', ',')).doubts, [], 'but not if it was given')
  })

  test('is the one that a first line names, as Excel writes and obeys it', async () => {
    for (const line of ['sep=;', '\ufeffsep=;\r', '"sep=;"', ' SEP=;', '\n\nsep=;', 'sep=;;;']) {
      const { columns, rows, summary } = await read(`${line}\na,b,c;d\n1;2\n`)
      assert.deepEqual(columns, ['a,b,c', 'd'], line)
      assert.deepEqual(rows, [{ 'a,b,c': '1', d: '2' }])
      assert.equal(summary, '2 columns, separated by semicolons, as the first line says')
    }
    assert.deepEqual(await columns('sep=\t\r\na\tb;c;d\n'), ['a', 'b;c;d'])
    assert.deepEqual(await columns('sep=;\na,b\n', ','), ['a', 'b'], 'unless another was given')
    await assert.rejects(read('sep=^\na^b\n'), /names a delimiter that is not known: \^/)
  })
})

suite('the header', () => {
  test('need not name each column: those that have no name are numbered, and that is told', async () => {
    const index = await read('"","mpg","cyl"\n"Mazda","21","6"\n"Fiat","32","4"\n') // as R writes its index; pandas: ,mpg,cyl
    assert.deepEqual(index.rows, [{ 'column 1': 'Mazda', mpg: '21', cyl: '6' }, { 'column 1': 'Fiat', mpg: '32', cyl: '4' }])
    assert.deepEqual(index.doubts, ["columns without a name, or with that of another, are called 'column 1'"])
    for (const [header, columns] of [
      [',a,b', ['column 1', 'a', 'b']], ['a,,c', ['a', 'column 2', 'c']], [',,c', ['column 1', 'column 2', 'c']],
      [',column 1,b', ['column 1', 'column 1 2', 'b']],
    ] as const) {
      const { columns: found, doubts, complaints, rows } = await read(`${header}\n1,2,3\n`)
      assert.deepEqual(found, columns, header)
      assert.match(doubts[0]!, /'column \d'|'column 1 2'/)
      assert.deepEqual([complaints, Object.values(rows[0])], [[], ['1', '2', '3']])
    }
    const last = await read('a,b,\n1,2,\n3,4,5\n')
    assert.deepEqual([last.columns, last.rows[1]], [['a', 'b', 'column 3'], { a: '3', b: '4', 'column 3': '5' }])
    assert.match(last.doubts[0]!, /'column 3'/)
    const empty = await read('a,b,\n1,2,\n3,4,\n')
    assert.deepEqual([empty.columns, empty.doubts], [['a', 'b'], []], 'but one with nothing in it is none')
  })

  test('may have a name again: the later ones are numbered, and that is told', async () => {
    for (const [header, columns, told] of [
      ['Male,Female,Male', ['Male', 'Female', 'Male 2'], "'Male 2'"], ['a,a,a', ['a', 'a 2', 'a 3'], "'a 2', 'a 3'"],
      ['a,a,a 2', ['a', 'a 3', 'a 2'], "'a 3'"], ['a 2,a,a', ['a 2', 'a', 'a 3'], "'a 3'"], ['a,,a', ['a', 'column 2', 'a 2'], "'column 2', 'a 2'"],
      ['constructor,__proto__,__proto__', ['constructor', '__proto__', '__proto__ 2'], "'__proto__ 2'"],
    ] as const) {
      const { columns: found, doubts, json } = await read(`${header}\n1,2,3\n${header}\n`)
      assert.deepEqual(found, columns, header)
      assert.equal(json, `{${columns.map((name, at) => `"${name}":"${at + 1}"`).join()}}\n`, 'the header again is no row')
      assert.deepEqual(doubts, [`columns without a name, or with that of another, are called ${told}`])
    }
    assert.deepEqual((await read('a,A, a\n1,2,3\n')).columns, ['a', 'A', ' a'], 'another spelling is another name')
  })

  test('has to name a column, and to be whole', async () => {
    for (const [content, why] of [
      ['', /the file is empty/], ['\ufeff\n\r\n', /the file is empty/], ['sep=;\n', /the file is empty/],
      [',,\n', /column 1 has no name/],
      ['a,"b\n', /not closed/], ['a,b"c\n', /a quote inside field 2/],
      ['x'.repeat(2 ** 20 + 1), /the header is longer than 1 MiB/],
    ] as const) await assert.rejects(read(content), why)
  })

  test('that is only one column, or only numbers, is doubted', async () => {
    assert.match((await read('a:b\n1:2\n')).doubts[0]!, /only one column/)
    assert.match((await read('2024,"1,5",-3\n2,3,4\n')).doubts[0]!, /only numbers/)
    assert.deepEqual((await read('year,2023,2024\nx,3,4\n')).doubts, [])
  })
})

suite('what is no CSV in UTF-8 is called what it seems to be', () => {
  const csv = 'name,age\nAnna,3\nBert,4\n'
  for (const [what, content, why] of [
    ['UTF-16 with its mark', Buffer.from('\ufeff' + csv, 'utf16le'), /UTF-16/],
    ['UTF-16 with its mark, the other way round', Buffer.from('\ufeff' + csv, 'utf16le').swap16(), /UTF-16/],
    ['UTF-16 without its mark', Buffer.from(csv, 'utf16le'), /UTF-16/],
    ['UTF-16 without its mark, the other way round', Buffer.from(csv, 'utf16le').swap16(), /UTF-16/],
    ['UTF-16 in Japanese', Buffer.from('名前,年齢\n花子,23\n', 'utf16le'), /UTF-16/],
    ['a workbook', Buffer.from('PK\x03\x04\x14\0\x06\0\b\0\n\0', 'latin1'), /Excel workbook \(\.xlsx\)/],
    ['an old workbook', Buffer.from('d0cf11e0a1b11ae1', 'hex'), /old Excel workbook/],
    ['packed', gzipSync(csv), /gzip/],
    ['a PDF', '%PDF-1.7\n', /PDF/],
    ['an error page', '\n<!DOCTYPE html>\n<html><p>Please log in, again\n', /HTML/],
    ['JSON', '[\n  {\n    "name": "Anna", "age": 3\n  }\n]\n', /JSON/],
    ['JSON lines', '{"name":"Anna","age":3}\n', /JSON/],
    ['a header in Windows-1252', Buffer.from('Größe,Preis\n1,2\n', 'latin1'), /the header: .*, perhaps Windows-1252/],
  ] as const) test(what, async () => assert.rejects(read(content), why))

  test('rows in Windows-1252 are left out, and that is said beforehand', async () => {
    const { rows, complaints, doubts } = await read(Buffer.from('a,b\nplain,1\ncafé,2\n', 'latin1'))
    assert.deepEqual(rows, [{ a: 'plain', b: '1' }])
    assert.deepEqual(complaints.map(([line]) => line), [3])
    assert.match(doubts[0]!, /invalid UTF-8, perhaps Windows-1252 \(Latin-1\)/)
  })

  test('NUL bytes are kept, but doubted', async () => {
    const { rows, doubts } = await read('a,b\n1,x\0y\n')
    assert.deepEqual(rows, [{ a: '1', b: 'x\0y' }])
    assert.match(doubts[0]!, /NUL bytes/)
  })

  test('a bracket in the header makes no JSON, and no HTML', async () => {
    assert.deepEqual((await read('[id],<b>,{x}\n1,2,3\n')).columns, ['[id]', '<b>', '{x}'])
  })
})

suite('files that were put together', () => {
  test('a second header is no row', async () => {
    const { rows, complaints } = await read('a,b\n1,2\n"a",b\r\n3,4\n')
    assert.deepEqual(rows, [{ a: '1', b: '2' }, { a: '3', b: '4' }])
    assert.deepEqual(complaints, [[3, 'the header again: were files put together?']])
    assert.deepEqual(await fields('word\nword\n'), [['word']], 'but a single word may be a row')
  })

  test('a byte order mark tells where another begins', async () => {
    const { rows, complaints } = await read('\ufeffa,b\n1,2\n\ufeffa,b\n3,4\n5,6\ufeffa,b\n7,"\ufeff"\n')
    assert.deepEqual(rows, [{ a: '1', b: '2' }, { a: '3', b: '4' }, { a: '7', b: '\ufeff' }])
    assert.deepEqual(complaints.map(([line]) => line), [3, 5])
    for (const [, msg] of complaints) assert.match(msg, /a byte order mark: another file begins here/)
  })
})
