// The official SDKs, asked for the same quotes: `node quotes.cjs VECTORS`, then one request per line.
//
//   {"case": "cpmm"}                what each vector of the case pays, as decimal strings, or an error
//   {"case": "cpmm", "passes": 40}  all of them so often; answers with the CPU time and the wall time
//
// VECTORS is JSON: by case, the pool's type and the vectors.
//
// Every function decodes the accounts and quotes, by the SDK's own functions and by nothing else. Where in doubt the
// SDK is asked for less: keys and plain mints are at hand as objects, and nothing is looked up by address.
"use strict";
const { readFileSync } = require("node:fs");
const { createRequire } = require("node:module");
const { createInterface } = require("node:readline");

const say = console.log;
console.log = console.warn = console.error = () => {}; // the SDKs greet with warnings about optional native parts

const { Connection, PublicKey } = require("@solana/web3.js");
const { AccountLayout, MintLayout, unpackMint, getTransferFeeConfig } = require("@solana/spl-token");
const BN = require("bn.js");

const TOKEN_2022 = "TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb";
const NOWHERE = new Connection("http://127.0.0.1:9"); // some constructors want one; nothing is asked of it

const tokens = (account) => new BN(AccountLayout.decode(account.data).amount.toString());
const supply = (account) => new BN(MintLayout.decode(account.data).supply.toString());

/** The mint as it is at hand: a plain one is known already, one of Token-2022 is read with the pool. */
const mint = (account) => account.plainMint ?? unpackMint(account.key, account, account.owner);

const SDKS = {
  async cpmm() {
    const sdk = require("@raydium-io/raydium-sdk-v2");
    const Decimal = createRequire(require.resolve("@raydium-io/raydium-sdk-v2"))("decimal.js");
    const { cpmm } = await sdk.Raydium.load({ connection: NOWHERE, disableLoadToken: true, disableFeatureCheck: true });
    return (vector) => {
      const { accounts } = vector;
      const pool = sdk.CpmmPoolInfoLayout.decode(accounts.pool.data);
      const baseReserve = tokens(accounts.vaultA).sub(pool.protocolFeesMintA).sub(pool.fundFeesMintA).sub(pool.creatorFeesMintA);
      const quoteReserve = tokens(accounts.vaultB).sub(pool.protocolFeesMintB).sub(pool.fundFeesMintB).sub(pool.creatorFeesMintB);
      const [mintIn, mintOut] = vector.aToB ? [accounts.mintA, accounts.mintB] : [accounts.mintB, accounts.mintA];
      const configInfo = sdk.CpmmConfigInfoLayout.decode(accounts.config.data);
      if (!pool.enableCreatorFee) configInfo.creatorFeeRate = new BN(0);
      const { amountOut } = cpmm.computeSwapAmount({
        pool: {
          ...pool, baseReserve, quoteReserve, configInfo, mintA: { address: vector.mintA }, mintB: { address: vector.mintB },
          poolPrice: new Decimal(quoteReserve.toString()).div(new Decimal(10).pow(pool.mintDecimalB))
            .div(new Decimal(baseReserve.toString()).div(new Decimal(10).pow(pool.mintDecimalA))), // as its `getRpcPoolInfos` does
        },
        amountIn: less(sdk, vector.amount, mintIn, vector), outputMint: vector.aToB ? vector.mintB : vector.mintA, slippage: 0,
      });
      return less(sdk, amountOut, mintOut, vector);
    };
  },

  async amm_v4() {
    const sdk = require("@raydium-io/raydium-sdk-v2");
    const { liquidity } = await sdk.Raydium.load({ connection: NOWHERE, disableLoadToken: true, disableFeatureCheck: true });
    return (vector) => {
      const { accounts } = vector;
      const pool = sdk.liquidityStateV4Layout.decode(accounts.pool.data);
      const [mintIn, mintOut] = vector.aToB ? [vector.mintA, vector.mintB] : [vector.mintB, vector.mintA];
      return liquidity.computeAmountOut({
        poolInfo: {
          version: 4,
          mintA: { address: vector.mintA, decimals: pool.baseDecimal.toNumber() },
          mintB: { address: vector.mintB, decimals: pool.quoteDecimal.toNumber() },
          baseReserve: tokens(accounts.vaultA).sub(pool.baseNeedTakePnl),
          quoteReserve: tokens(accounts.vaultB).sub(pool.quoteNeedTakePnl),
        },
        amountIn: vector.amount, mintIn, mintOut, slippage: 0,
      }).amountOut;
    };
  },

  clmm() {
    const sdk = require("@raydium-io/raydium-sdk-v2");
    return (vector) => {
      const { accounts } = vector;
      const pool = sdk.PoolInfoLayout.decode(accounts.pool.data);
      const extension = accounts.extension && sdk.TickArrayBitmapExtensionLayout.decode(accounts.extension.data);
      const arrays = {};
      for (const account of vector.arrays) {
        const array = sdk.TickArrayLayout.decode(account.data);
        arrays[array.startTickIndex] = { ...array, address: account.key };
      }
      const result = sdk.PoolUtils.computeAmountOut({
        poolInfo: {
          accInfo: pool, id: accounts.pool.key, programId: accounts.pool.owner,
          ammConfig: sdk.ClmmConfigLayout.decode(accounts.config.data),
          mintA: { address: vector.mintA, decimals: pool.mintDecimalsA, extensions: {} },
          mintB: { address: vector.mintB, decimals: pool.mintDecimalsB, extensions: {} },
          currentPrice: sdk.TickUtil.sqrtPriceX64ToPrice(pool.sqrtPriceX64, pool.mintDecimalsA, pool.mintDecimalsB),
        },
        tickarrayBitmapExtension: extension, tickArrayCache: arrays,
        baseMint: vector.aToB ? accounts.mintA.key : accounts.mintB.key,
        amountIn: vector.amount, slippage: 0, epochInfo: vector.epochInfo, blockTimestamp: Number(vector.now),
        catchLiquidityInsufficient: false,
      });
      if (!result.allTrade) throw new Error("not all of it can be traded");
      return result.amountOut.amount;
    };
  },

  damm_v2() {
    const sdk = require("@meteora-ag/cp-amm-sdk");
    const pools = new sdk.CpAmm(NOWHERE)._program.coder.accounts;
    const info = (account, vector) =>
      account.plainMint ? undefined : { mint: mint(account), currentEpoch: vector.epochInfo.epoch };
    return (vector) => {
      const { accounts } = vector;
      const pool = pools.decode("pool", accounts.pool.data);
      const [mintIn, mintOut] = vector.aToB ? [accounts.mintA, accounts.mintB] : [accounts.mintB, accounts.mintA];
      return sdk.swapQuoteExactInput(
        pool, new BN(pool.activationType ? vector.now : vector.slot), vector.amount, 0, vector.aToB, false, 6, 6,
        info(mintIn, vector), info(mintOut, vector),
      ).minimumAmountOut; // at no slippage: what arrives, after the fee that the mint itself takes
    };
  },

  dlmm() {
    const sdk = require("@meteora-ag/dlmm");
    const Dlmm = sdk.default ?? sdk;
    const program = sdk.createProgram(NOWHERE);
    return (vector) => {
      const { accounts } = vector;
      const pair = sdk.decodeAccount(program, "lbPair", accounts.pool.data);
      const extension = accounts.extension && {
        publicKey: accounts.extension.key,
        account: sdk.decodeAccount(program, "binArrayBitmapExtension", accounts.extension.data),
      };
      const arrays = vector.arrays.map((account) => ({
        publicKey: account.key, account: sdk.decodeAccount(program, "binArray", account.data),
      }));
      const instance = new Dlmm(
        accounts.pool.key, program, pair, extension ?? null, { mint: mint(accounts.mintA) }, { mint: mint(accounts.mintB) },
        [null, null], { epoch: vector.epoch },
      );
      return instance.swapQuote(vector.amount, vector.aToB, new BN(0), arrays, false).outAmount;
    };
  },

  damm_v1() {
    const sdk = require("@meteora-ag/dynamic-amm-sdk");
    const { BorshCoder } = createRequire(require.resolve("@meteora-ag/dynamic-amm-sdk"))("@coral-xyz/anchor");
    const pools = new BorshCoder(sdk.AmmIdl).accounts, vaults = new BorshCoder(sdk.VaultIdl).accounts;
    return (vector) => {
      const { accounts } = vector;
      return sdk.calculateSwapQuote(vector.aToB ? accounts.mintA.key : accounts.mintB.key, vector.amount, {
        currentTime: Number(vector.now), currentSlot: Number(vector.slot),
        poolState: pools.decode("pool", accounts.pool.data),
        depegAccounts: new Map(),
        vaultA: vaults.decode("vault", accounts.vaultA.data), vaultB: vaults.decode("vault", accounts.vaultB.data),
        poolVaultALp: tokens(accounts.sharesA), poolVaultBLp: tokens(accounts.sharesB),
        vaultALpSupply: supply(accounts.supplyA), vaultBLpSupply: supply(accounts.supplyB),
        vaultAReserve: tokens(accounts.heldA), vaultBReserve: tokens(accounts.heldB),
      }).amountOut;
    };
  },
};

/** What arrives of an amount, by Raydium's SDK, after the fee that the mint itself takes. */
function less(sdk, amount, account, vector) {
  if (account.plainMint) return amount;
  const fee = sdk.getTransferAmountFeeV2(amount, sdk.toFeeConfig(getTransferFeeConfig(mint(account))), vector.epochInfo, false);
  return fee.fee === undefined ? fee.amount : fee.amount.sub(fee.fee);
}

function readAccount({ address, owner, data }) {
  const account = { key: new PublicKey(address), owner: new PublicKey(owner), data: Buffer.from(data, "base64") };
  if (account.data.length === 82 && owner !== TOKEN_2022) account.plainMint = unpackMint(account.key, account, account.owner);
  return account;
}

function readVector(vector) {
  const accounts = Object.fromEntries(Object.entries(vector.accounts).map(([name, each]) => [name, readAccount(each)]));
  return {
    ...vector, accounts, arrays: vector.arrays.map(readAccount), amount: new BN(vector.amount),
    mintA: accounts.mintA.key.toBase58(), mintB: accounts.mintB.key.toBase58(), epoch: new BN(vector.epoch),
    epochInfo: { epoch: Number(vector.epoch), slotsInEpoch: 432_000, absoluteSlot: Number(vector.slot), slotIndex: 0 },
  };
}

// The DLMM SDK takes the time from the machine's clock, so that is set to the time of the recording.
let nowMs = 0;
Date.now = () => nowMs;

async function main() {
  const cases = JSON.parse(readFileSync(process.argv[2]));
  const ready = {};
  for await (const line of createInterface({ input: process.stdin })) {
    const { case: name, passes } = JSON.parse(line);
    try {
      ready[name] ??= { quote: await SDKS[cases[name].type](), vectors: cases[name].vectors.map(readVector) };
      say(JSON.stringify(passes === undefined ? { amounts: amounts(ready[name]) } : timed(ready[name], passes)));
    } catch (error) {
      say(JSON.stringify({ error: String(error) }));
    }
  }
}

function amounts({ quote, vectors }) {
  return vectors.map((vector) => {
    nowMs = Number(vector.now) * 1000;
    try {
      return quote(vector).toString();
    } catch (error) {
      return String(error);
    }
  });
}

function timed({ quote, vectors }, passes) {
  const cpu = process.cpuUsage(), wall = process.hrtime.bigint();
  for (let pass = 0; pass < passes; pass++) {
    for (const vector of vectors) {
      nowMs = Number(vector.now) * 1000;
      try {
        quote(vector);
      } catch {
        // a refusal is an answer, too; `amounts` tells of it
      }
    }
  }
  const { user, system } = process.cpuUsage(cpu);
  return { cpu_us: user + system, wall_us: Number((process.hrtime.bigint() - wall) / 1000n) };
}

main();
