// CrossCheck lets Bouncy Castle's RFC 4998 implementation judge records made by us, and makes records for us
// to judge. Run by bouncycastle_test.go as a single-file program.
//
//   CrossCheck verify DIR   for each DIR/x.ers says whether it proves DIR/x.data: "x valid" or "x invalid: why"
//   CrossCheck make DIR     writes records with their objects: DIR/x.ers, DIR/x.data
import java.math.BigInteger;
import java.nio.file.*;
import java.security.*;
import java.util.*;
import org.bouncycastle.asn1.ASN1ObjectIdentifier;
import org.bouncycastle.asn1.x500.X500Name;
import org.bouncycastle.asn1.x509.*;
import org.bouncycastle.cert.*;
import org.bouncycastle.cert.jcajce.*;
import org.bouncycastle.cms.jcajce.*;
import org.bouncycastle.jce.provider.BouncyCastleProvider;
import org.bouncycastle.operator.*;
import org.bouncycastle.operator.jcajce.*;
import org.bouncycastle.tsp.*;
import org.bouncycastle.tsp.ers.*;
import org.bouncycastle.util.CollectionStore;

public class CrossCheck {
    static final AlgorithmIdentifier SHA256 =
        new DefaultDigestAlgorithmIdentifierFinder().find("SHA-256");
    static final AlgorithmIdentifier SHA512 =
        new DefaultDigestAlgorithmIdentifierFinder().find("SHA-512");
    static DigestCalculatorProvider digests;
    static KeyPair keys;
    static X509CertificateHolder cert;
    static long serial = 1;

    public static void main(String[] args) throws Exception {
        Security.addProvider(new BouncyCastleProvider());
        digests = new JcaDigestCalculatorProviderBuilder().setProvider("BC").build();
        Path dir = Paths.get(args[1]);
        if (args[0].equals("verify")) {
            verify(dir);
        } else {
            makeTSA();
            make(dir);
        }
    }

    static void verify(Path dir) throws Exception {
        try (DirectoryStream<Path> files = Files.newDirectoryStream(dir, "*.ers")) {
            for (Path file : files) {
                String name = file.getFileName().toString().replace(".ers", "");
                byte[] data = Files.readAllBytes(dir.resolve(name + ".data"));
                try {
                    ERSEvidenceRecord record = new ERSEvidenceRecord(Files.readAllBytes(file), digests);
                    record.validatePresent(new ERSByteData(data), new Date());
                    record.validate(new JcaSimpleSignerInfoVerifierBuilder().setProvider("BC")
                        .build(record.getSigningCertificate()));
                    System.out.println(name + " valid");
                } catch (Exception e) {
                    System.out.println(name + " invalid: " + e.getMessage());
                }
            }
        }
    }

    static void make(Path dir) throws Exception {
        for (int n : new int[] {1, 2, 3, 7, 12}) {
            List<ERSData> objects = new ArrayList<>();
            for (int i = 0; i < n; i++) {
                objects.add(new ERSByteData(text(n, i)));
            }
            DigestCalculator digest = digests.get(SHA256);
            ERSArchiveTimeStampGenerator gen = new ERSArchiveTimeStampGenerator(digest);
            gen.addAllData(objects);
            TimeStampResponse answer = answer(gen.generateTimeStampRequest(requests()));
            gen = new ERSArchiveTimeStampGenerator(digest);
            gen.addAllData(objects);
            List<ERSArchiveTimeStamp> stamps = gen.generateArchiveTimeStamps(answer);
            List<ERSEvidenceRecord> records = new ERSEvidenceRecordGenerator(digests).generate(stamps);
            for (ERSEvidenceRecord record : records) {
                for (int i = 0; i < n; i++) {
                    if (record.isContaining(objects.get(i), new Date())) {
                        write(dir, "tree-" + i + "-of-" + n, record, text(n, i));
                    }
                }
            }
            renew(dir, "of-" + n, records.get(0), n, objects);
        }
    }

    static void renew(Path dir, String name, ERSEvidenceRecord record, int n, List<ERSData> objects)
            throws Exception {
        int i = 0;
        while (!record.isContaining(objects.get(i), new Date())) {
            i++;
        }
        record = record.renewTimeStamp(answer(record.generateTimeStampRenewalRequest(requests())));
        write(dir, "renewed-" + name, record, text(n, i));
        ERSData object = new ERSByteData(text(n, i));
        DigestCalculator digest = digests.get(SHA512);
        TimeStampRequest request = record.generateHashRenewalRequest(digest, object, requests());
        record = record.renewHash(digest, object, answer(request));
        write(dir, "rehashed-" + name, record, text(n, i));
        record = record.renewTimeStamp(answer(record.generateTimeStampRenewalRequest(requests())));
        write(dir, "rehashed-renewed-" + name, record, text(n, i));
    }

    static byte[] text(int n, int i) {
        return ("object " + i + " of " + n).getBytes();
    }

    static void write(Path dir, String name, ERSEvidenceRecord record, byte[] data) throws Exception {
        Files.write(dir.resolve(name + ".ers"), record.getEncoded());
        Files.write(dir.resolve(name + ".data"), data);
    }

    static TimeStampRequestGenerator requests() {
        TimeStampRequestGenerator gen = new TimeStampRequestGenerator();
        gen.setCertReq(true);
        return gen;
    }

    static void makeTSA() throws Exception {
        KeyPairGenerator gen = KeyPairGenerator.getInstance("RSA", "BC");
        gen.initialize(2048);
        keys = gen.generateKeyPair();
        X500Name name = new X500Name("CN=Cross-check TSA");
        Date from = new Date(System.currentTimeMillis() - 3600_000L);
        Date to = new Date(System.currentTimeMillis() + 3600_000L);
        JcaX509v3CertificateBuilder b = new JcaX509v3CertificateBuilder(name, BigInteger.ONE, from, to, name, keys.getPublic());
        b.addExtension(Extension.extendedKeyUsage, true, new ExtendedKeyUsage(KeyPurposeId.id_kp_timeStamping));
        cert = b.build(new JcaContentSignerBuilder("SHA256withRSA").setProvider("BC").build(keys.getPrivate()));
    }

    static TimeStampResponse answer(TimeStampRequest request) throws Exception {
        TimeStampTokenGenerator tokens = new TimeStampTokenGenerator(
            new JcaSimpleSignerInfoGeneratorBuilder().setProvider("BC").build("SHA256withRSA", keys.getPrivate(), cert),
            digests.get(SHA256), new ASN1ObjectIdentifier("1.3.6.1.4.1.13762.3"));
        tokens.addCertificates(new CollectionStore<>(Collections.singletonList(cert)));
        TimeStampResponseGenerator gen = new TimeStampResponseGenerator(tokens, TSPAlgorithms.ALLOWED);
        byte[] der = gen.generate(request, BigInteger.valueOf(serial++), new Date()).getEncoded();
        return new TimeStampResponse(der);
    }
}
