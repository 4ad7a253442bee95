"""Text of 40 languages and formats, written for these tests: nothing that the input bound knows was made from it."""

from __future__ import annotations

import base64
import json
import random
import uuid

__all__ = ["LANGUAGES", "formats", "texts"]

LANGUAGES = {
    "en": "Nobody had mended the fence since the storm. Two goats wandered across the road and ate the neighbour's "
    "roses, which led to a long letter. The mayor read it aloud, sighed, and promised a new gate before winter. ",
    "de": "Seit dem Sturm hatte niemand den Zaun geflickt. Zwei Ziegen liefen über die Straße und fraßen die Rosen des "
    "Nachbarn, worauf ein langer Brief folgte. Der Bürgermeister las ihn vor und versprach ein neues Tor. ",
    "fr": "Personne n'avait réparé la clôture depuis la tempête. Deux chèvres traversèrent la route et mangèrent les "
    "roses du voisin, ce qui valut une longue lettre. Le maire la lut à voix haute et promit un portail neuf. ",
    "es": "Nadie había arreglado la valla desde la tormenta. Dos cabras cruzaron la carretera y se comieron las rosas "
    "del vecino, lo que dio lugar a una larga carta. El alcalde la leyó en voz alta y prometió una verja nueva. ",
    "it": "Nessuno aveva riparato il recinto dopo la tempesta. Due capre attraversarono la strada e mangiarono le rose "
    "del vicino, che scrisse una lunga lettera. Il sindaco la lesse ad alta voce e promise un cancello nuovo. ",
    "pt": "Ninguém tinha consertado a cerca desde a tempestade. Duas cabras atravessaram a estrada e comeram as rosas "
    "do vizinho, o que deu origem a uma longa carta. O prefeito leu-a em voz alta e prometeu um portão novo. ",
    "nl": "Niemand had het hek gerepareerd sinds de storm. Twee geiten staken de weg over en aten de rozen van de "
    "buurman op, waarop een lange brief volgde. De burgemeester las hem voor en beloofde een nieuwe poort. ",
    "sv": "Ingen hade lagat staketet sedan stormen. Två getter gick över vägen och åt upp grannens rosor, vilket ledde "
    "till ett långt brev. Borgmästaren läste det högt, suckade och lovade en ny grind före vintern. ",
    "pl": "Nikt nie naprawił płotu od czasu burzy. Dwie kozy przeszły przez drogę i zjadły róże sąsiada, po czym "
    "przyszedł długi list. Burmistrz przeczytał go na głos, westchnął i obiecał nową bramę przed zimą. ",
    "cs": "Od bouřky nikdo plot neopravil. Dvě kozy přešly silnici a sežraly sousedovi růže, načež přišel dlouhý "
    "dopis. Starosta jej přečetl nahlas, povzdechl si a slíbil novou branku ještě před zimou. ",
    "fi": "Kukaan ei ollut korjannut aitaa myrskyn jälkeen. Kaksi vuohta käveli tien yli ja söi naapurin ruusut, mistä "
    "seurasi pitkä kirje. Kunnanjohtaja luki sen ääneen, huokaisi ja lupasi uuden portin ennen talvea. ",
    "tr": "Fırtınadan beri çiti kimse onarmamıştı. İki keçi yolu geçip komşunun güllerini yedi, bunun üzerine uzun bir "
    "mektup geldi. Belediye başkanı mektubu yüksek sesle okudu ve kıştan önce yeni bir kapı sözü verdi. ",
    "hu": "A vihar óta senki sem javította meg a kerítést. Két kecske átment az úton, és megette a szomszéd rózsáit, "
    "amiből hosszú levél lett. A polgármester felolvasta, sóhajtott, és új kaput ígért a tél előtt. ",
    "ro": "Nimeni nu reparase gardul de la furtună. Două capre au trecut drumul și au mâncat trandafirii vecinului, "
    "ceea ce a dus la o scrisoare lungă. Primarul a citit-o cu voce tare și a promis o poartă nouă. ",
    "vi": "Không ai sửa hàng rào kể từ cơn bão. Hai con dê đi qua đường và ăn hết hoa hồng của nhà hàng xóm, "
    "thế là có một bức thư dài. Ông thị trưởng đọc to lên, thở dài và hứa sẽ làm cổng mới trước mùa đông. ",
    "id": "Tidak ada yang memperbaiki pagar sejak badai itu. Dua ekor kambing menyeberang jalan dan memakan mawar "
    "milik tetangga, lalu datanglah surat panjang. Wali kota membacanya keras-keras dan berjanji membuat gerbang. ",
    "ru": "После бури никто не починил забор. Две козы перешли дорогу и съели розы соседа, из-за чего пришло длинное "
    "письмо. Мэр прочитал его вслух, вздохнул и пообещал новые ворота ещё до зимы. ",
    "uk": "Після бурі ніхто не полагодив паркан. Дві кози перейшли дорогу і з'їли троянди сусіда, через що надійшов "
    "довгий лист. Мер прочитав його вголос, зітхнув і пообіцяв нову браму ще до зими. ",
    "el": "Κανείς δεν είχε φτιάξει τον φράχτη μετά την καταιγίδα. Δύο κατσίκες πέρασαν τον δρόμο και έφαγαν τα "
    "τριαντάφυλλα του γείτονα. Ο δήμαρχος διάβασε το γράμμα δυνατά και υποσχέθηκε μια καινούργια πύλη. ",
    "he": "איש לא תיקן את הגדר מאז הסערה. שתי עזים חצו את הכביש ואכלו את הוורדים של השכן, ובעקבות זאת הגיע מכתב ארוך. "
    "ראש העיר קרא אותו בקול, נאנח והבטיח שער חדש לפני החורף. ",
    "ar": "لم يصلح أحد السياج منذ العاصفة. عبرت عنزتان الطريق وأكلتا ورود الجار، فجاءت رسالة طويلة. قرأها رئيس البلدية "
    "بصوت عال وتنهد ووعد ببوابة جديدة قبل الشتاء. ",
    "hi": "तूफ़ान के बाद से किसी ने बाड़ ठीक नहीं की थी। दो बकरियाँ सड़क पार करके पड़ोसी के गुलाब खा गईं, जिस पर एक लंबी चिट्ठी आई। "
    "महापौर ने उसे ज़ोर से पढ़ा और नए फाटक का वादा किया। ",
    "th": "ตั้งแต่พายุผ่านไปก็ไม่มีใครซ่อมรั้วเลย แพะสองตัวเดินข้ามถนนไปกินดอกกุหลาบของเพื่อนบ้าน จึงมีจดหมายฉบับยาวส่งมา "
    "นายกเทศมนตรีอ่านออกเสียงแล้วสัญญาว่าจะทำประตูใหม่ก่อนฤดูหนาว ",
    "zh": "自从那场暴风雨以后，没有人修过篱笆。两只山羊穿过马路，吃掉了邻居的玫瑰，于是来了一封很长的信。市长大声念完，"
    "叹了一口气，答应在冬天以前装一扇新门。",
    "ja": "嵐のあと、だれも柵を直していなかった。二匹のヤギが道を渡って隣の家のバラを食べてしまい、長い手紙が"
    "届いた。町長はそれを声に出して読み、ため息をついて、冬までに新しい門を作ると約束した。",
    "ko": "폭풍이 지나간 뒤로 아무도 울타리를 고치지 않았다. 염소 두 마리가 길을 건너 이웃집 장미를 먹어 버렸다. "
    "그래서 긴 편지가 왔다. 시장은 그것을 소리 내어 읽고 겨울 전에 새 문을 만들겠다고 약속했다. ",
}
_WORDS = [
    "harbour", "ledger", "quantity", "pending", "shipment", "gravel", "orchard", "invoice", "tariff", "vessel", "crane",
    "granite", "timber", "customs", "berth", "ballast", "cargo", "manifest", "pilot", "tide", "anchor", "winch",
    "freight", "pallet", "quay", "dock", "rudder", "keel", "lantern", "buoy",
]  # fmt: skip


def formats(seed: int) -> dict[str, str]:
    """Machine-made text of some thousand characters each."""
    draw = random.Random(seed)

    def word() -> str:
        return draw.choice(_WORDS)

    def number(most: int = 10**6) -> int:
        return draw.randrange(most)

    rows = [
        {"id": number(), "name": f"{word()} {word()}", "open": draw.random() < 0.5,
         "weight": round(draw.random() * 90, 3), "tags": [word(), word()], "owner": None}
        for _ in range(60)
    ]  # fmt: skip
    compact = json.dumps(rows, separators=(",", ":"))
    return {
        "json": compact,
        "json-indented": json.dumps(rows, indent=2),
        "json-escaped": json.dumps(compact),
        "csv": "\n".join(",".join(str(round(draw.uniform(0, 900), 2)) for _ in range(7)) for _ in range(120)),
        "sql": "\n".join(
            f"SELECT {word()}_id, count(*) FROM {word()} WHERE {word()} > {number(99)};"  # noqa: S608 -- only a text
            for _ in range(70)
        ),
        "log": "\n".join(
            f"2026-11-{number(28) + 1:02}T{number(24):02}:{number(60):02}:07.{number(1_000):03}Z WARN {word()} "
            f"request={uuid.UUID(int=draw.getrandbits(128))} took={number(900)}ms"
            for _ in range(60)
        ),
        "python": "\n".join(
            f"def {word()}_{word()}({word()}: int, {word()}: str | None = None) -> dict[str, float]:\n"
            f'    """Count the {word()} of a {word()}."""\n'
            f"    if {word()} is None:\n        raise ValueError('no {word()}')\n"
            f"    return {{'{word()}': {number(99)} / 7}}\n"
            for _ in range(30)
        ),
        "yaml": "\n".join(
            f"{word()}:\n  - {word()}: {number(500)}\n    {word()}: {word()}-{word()}" for _ in range(90)
        ),
        "html": "".join(
            f'<li class="{word()}"><a href="/{word()}/{number()}">{word().title()} &amp; {word()}</a></li>\n'
            for _ in range(60)
        ),
        "markdown": "\n".join(
            f"## {word().title()} {word()}\n\n- **{word()}**: `{word()}_{number(99)}` | {word()}\n"
            f"- see [{word()}]({word()}.md)\n"
            for _ in range(50)
        ),
        "url": "\n".join(
            f"https://{word()}.example.org/{word()}/{draw.getrandbits(48):x}?{word()}={number()}&x=%20{word()}"
            for _ in range(70)
        ),
        "hex": draw.randbytes(2_500).hex(),
        "base64": base64.b64encode(draw.randbytes(3_600)).decode(),
        "emoji": " ".join(f"{word()} {draw.choice('😀🎉🔥👍🤖🌧🐐🚪')}" for _ in range(500)),
        "digits": " ".join(str(number(10 ** draw.randrange(1, 9))) for _ in range(800)),
    }


def texts(seed: int) -> dict[str, str]:
    """Every language and format: a language's sentences in many orders."""
    draw = random.Random(seed)
    made: dict[str, str] = {}
    for name, text in LANGUAGES.items():
        mark = next(mark for mark in (". ", "。", "। ", " ") if mark in text)
        parts = [part + mark for part in text.split(mark) if part]
        made[name] = "".join(draw.choice(parts) for _ in range(60))
    return {**made, **formats(seed)}
